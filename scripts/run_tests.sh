#!/usr/bin/env bash
# Environment, linter, types, all tests. Arguments go to pytest: bash scripts/run_tests.sh tests/quant -k dobi
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/environment.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
export OMP_NUM_THREADS=1
# after a crash a new worker would be given nothing to do, and the run would never end
exec .venv/bin/python -m pytest -n "${TEST_WORKERS:-2}" --dist loadfile --max-worker-restart 0 "$@"
