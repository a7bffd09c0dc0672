#!/usr/bin/env bash
# Environment, linter, types, all tests. Arguments go to pytest: bash scripts/run_tests.sh tests/quant -k dobi
#   bash scripts/run_tests.sh -m "not slow"     what answers fast
#   bash scripts/run_tests.sh --coverage        also counts the lines that run, in other processes too; names the files below 90 %
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/environment.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
export OMP_NUM_THREADS=1
python=.venv/bin/python
measured=()
if [ "${1:-}" = --coverage ]; then
    shift
    measured=(coverage run -m)
    $python -m coverage erase
fi
# after a crash a new worker would be given nothing to do, and the run would never end
$python -m "${measured[@]}" pytest -n "${TEST_WORKERS:-2}" --dist loadfile --max-worker-restart 0 "$@"
if [ ${#measured[@]} -gt 0 ]; then
    $python -m coverage combine --quiet
    echo "Lines that the tests run, in the files where that is below 90 %, and in all:"
    $python -m coverage report | awk '/%$/ && ($NF + 0 < 90 || $1 == "TOTAL")'
fi
