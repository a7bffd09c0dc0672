#!/usr/bin/env bash
# Short tests with Python 3.10 and torch 2.7, and with Python 3.13 and torch 2.13. Their packages are installed at the same time.
# What cannot be installed is told and left out; what fails in a test ends with an error. LIMIT bounds the seconds of the installation.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A torch=([oldest]=torch==2.7.0 [newest]=torch==2.13.0) installation
for lane in oldest newest; do
    TORCH=${torch[$lane]} INSTALL=1 timeout "${LIMIT:-900}" bash scripts/version_lane.sh "$lane" &
    installation[$lane]=$!
done
for lane in oldest newest; do
    if ! wait "${installation[$lane]}"; then
        echo "The lane '$lane' was not run: its interpreter or its packages could not be had." >&2
    else
        echo "The lane '$lane' with ${torch[$lane]}:"
        TORCH=${torch[$lane]} SHORT=1 bash scripts/version_lane.sh "$lane" -p no:cacheprovider
    fi
done
