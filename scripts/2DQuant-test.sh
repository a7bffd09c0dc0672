#!/usr/bin/env bash
# Measure what scripts/2DQuant-train.sh made on the benchmarks, each network at its last iterate.
#   bash scripts/2DQuant-test.sh           SCALES=4 BITS="4 2" bash scripts/2DQuant-test.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
for scale in ${SCALES:-2 3 4}; do
    for bit in ${BITS:-2 3 4}; do
        $python basicsr/test.py -opt "options/test/test_2DQuant_x$scale.yml" \
            --force_yml bit="$bit" name="test_2DQuant_x${scale}_bit$bit" \
            path:pretrain_network_Q="experiments/train_2DQuant_x${scale}_bit$bit/models/net_Q_latest.pth" "$@"
    done
done
