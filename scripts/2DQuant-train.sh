#!/usr/bin/env bash
# 2DQuant at 2, 3 and 4 bits for x2, x3 and x4; a run that was stopped continues, a finished one is left as it is.
#   bash scripts/2DQuant-train.sh          SCALES=4 BITS="4 2" bash scripts/2DQuant-train.sh train:accumulation_steps=2
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
for scale in ${SCALES:-2 3 4}; do
    for bit in ${BITS:-2 3 4}; do
        $python basicsr/train.py -opt "options/train/train_2DQuant_x$scale.yml" --auto_resume \
            --force_yml bit="$bit" name="train_2DQuant_x${scale}_bit$bit" "$@"
    done
done
