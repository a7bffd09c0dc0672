#!/usr/bin/env bash
# The fast tests with the oldest versions that pyproject.toml allows, or with the newest that there are:
#   PYTHON=python3.10 bash scripts/version_lane.sh oldest        PYTHON=python3.13 bash scripts/version_lane.sh newest
# TORCH names another torch for it, such as torch==2.7.0; SHORT=1 runs a quarter of these tests; DRY=1 shows packages and tests, and ends.
# Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
lane=${1:-}
case "$lane" in
    oldest) change='\1==\2.*' ;;  # of `numpy>=1.26` any 1.26
    newest) change='\1>=\2' ;;
    *) echo "Give 'oldest' or 'newest', not '$lane'." >&2; exit 2 ;;
esac
shift
mapfile -t packages < <(sed -n '/^dependencies/,/^]/ s/^ *"\([A-Za-z0-9-]*\)>=\([0-9.]*\)",$/\1>=\2/p' pyproject.toml | sed "s/^\(.*\)>=\(.*\)$/$change/")
if [ -n "${TORCH:-}" ]; then
    packages=("$TORCH" "${packages[@]:1}")
fi
packages+=("scikit-image>=0.24" pytest pytest-xdist hypothesis jsonschema)
tests=(tests/archs tests/quant tests/training tests/models tests/utils/test_checkpoint.py)
if [ -n "${SHORT:-}" ]; then
    tests=(tests/archs tests/quant/insertion tests/training/test_gradient_step.py tests/models tests/utils/test_checkpoint.py)
fi
if [ -n "${DRY:-}" ]; then
    printf '%s\n' "${packages[@]}" "${tests[@]}"
    exit
fi
environment=.venv-$lane
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest -q -n 2 -m "not slow" "${tests[@]}" "$@"
