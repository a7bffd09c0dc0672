#!/usr/bin/env bash
# Draw the calibration sets of 2DQuant: 32 crops of 64 x 64 LR pixels from DF2K for each scale, as keydata/cali_data_x<scale>.json.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
for scale in ${SCALES:-2 3 4}; do
    $python scripts/make_calibration_set.py --scale "$scale" --num "${NUM:-32}" --crop_size "${CROP_SIZE:-64}" \
        --dataroot_gt datasets/DF2K/HR --dataroot_lq "datasets/DF2K/LR_bicubic/X$scale" \
        --out "keydata/cali_data_x$scale.json"
done
