#!/usr/bin/env bash
# From a fresh clone to a 4-bit SwinIR-light x4, on the pictures and the network that the repository carries:
#   bash scripts/quickstart.sh          BIT=2 bash scripts/quickstart.sh
# Full precision, MinMax, DOBI and 2DQuant are measured; table, crops side by side and report.html go to results/quickstart_bit<BIT>/.
# ITERATIONS=2 shortens the distillation of 2DQuant to that many iterations, and nothing else: a trial of the whole path.
set -euo pipefail
cd "$(dirname "$0")/.."
bit=${BIT:-4}
bash scripts/environment.sh
python=.venv/bin/python
$python basicsr/test.py -opt options/test/demo_FP.yml
for method in MinMax DOBI 2DQuant; do
    changes=(bit="$bit")
    if [ "$method" = 2DQuant ] && [ -n "${ITERATIONS:-}" ]; then  # the others train nothing
        changes+=(train:total_iter="$ITERATIONS")
    fi
    $python basicsr/train.py -opt "options/train/demo_$method.yml" --force_yml "${changes[@]}"
    $python basicsr/test.py -opt options/test/demo.yml --force_yml recipe="$method" bit="$bit"
done
echo  # the table and where its files lie are the last block, apart from the log
$python basicsr/report.py results/demo_FP_x4 "results/demo_MinMax_x4_bit$bit" "results/demo_DOBI_x4_bit$bit" \
    "results/demo_2DQuant_x4_bit$bit" -o "results/quickstart_bit$bit/report.html" --title "SwinIR-light x4 at $bit bits"
