#!/usr/bin/env bash
# On a machine with a CUDA device and without network, in under eight minutes: the tests that need one, the benchmark rows, a short 2DQuant.
#   bash scripts/gpu_check.sh [FOLDER]         what it prints is kept in FOLDER, by default results/gpu_check
# PYTHON is an interpreter with the requirements, by default .venv's; DRY=1 shows the commands and runs none.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-results/gpu_check}
python=${PYTHON:-.venv/bin/python}
steps=(
    "tests 180 $python -m pytest -q -m gpu tests"
    "benchmarks 100 $python scripts/benchmark.py swinir"
    "train 150 $python basicsr/train.py -opt options/train/demo_2DQuant.yml --force_yml device=cuda train:total_iter=300 name=gpu_check"
    "test 45 $python basicsr/test.py -opt options/test/demo.yml --force_yml device=cuda recipe=2DQuant name=gpu_check path:pretrain_network_Q=experiments/gpu_check/models/net_Q_latest.pth"
)
if [ -n "${DRY:-}" ]; then
    printf '%s\n' "${steps[@]}"
    exit
fi
if ! command -v "$python" > /dev/null; then
    echo "There is no interpreter '$python': run scripts/environment.sh, or name one with PYTHON." >&2
    exit 2
fi
if ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "This machine has no CUDA device that torch can use, so that nothing was checked." >&2
    exit 2
fi
mkdir -p "$folder"
"$python" -c "import torch; print(torch.cuda.get_device_name(), 'torch', torch.__version__)" | tee "$folder/device.txt"
failed=0
for step in "${steps[@]}"; do
    read -r name seconds command <<< "$step"
    started=$SECONDS
    code=0
    # shellcheck disable=SC2086
    timeout "$seconds" $command > "$folder/$name.txt" 2>&1 || code=$?
    tail -n 3 "$folder/$name.txt"
    echo "$name: exit code $code after $((SECONDS - started)) of at most $seconds seconds" | tee -a "$folder/summary.txt"
    [ "$code" = 0 ] || failed=1
done
exit "$failed"
