#!/usr/bin/env bash
# Make .venv with what a requirements file names, once; source it or run it from the root of the checkout.
#   bash scripts/environment.sh [requirements-dev.txt]
# PYTHON chooses the interpreter (3.10 to 3.13); TORCH the torch to install first, such as a CUDA build of one's own.
# LOCKED=1 installs the versions of requirements*.lock instead, and nothing whose hash is another one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
requirements=${1:-requirements.txt}
torch=${TORCH:-torch==2.13.0}
wanted=$(cat requirements*.txt; echo "$torch"; [ -z "${LOCKED:-}" ] || cat requirements*.lock)
if [ ! -x .venv/bin/python ] || [ "$(cat ".venv/.installed-$requirements" 2>/dev/null)" != "$wanted" ]; then
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv --clear .venv
    if [ -n "${LOCKED:-}" ]; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "${requirements%.txt}.lock"
    else
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "$torch"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
    fi
    # what one file includes is in place with it: after the tests, the quickstart has nothing to install
    for file in "$requirements" $(sed -n 's/^-r //p' "$requirements"); do
        printf '%s\n' "$wanted" > ".venv/.installed-$file"
    done
fi
