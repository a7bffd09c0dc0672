#!/usr/bin/env bash
# The fast tests with the oldest versions that pyproject.toml allows, or with the newest that there are:
#   bash scripts/version_lane.sh oldest        # Python 3.10
#   bash scripts/version_lane.sh newest        # Python 3.13
# TORCH names another torch for it, such as torch==2.7.0; PYTHON another interpreter than python3.10 or python3.13, or that of pyenv.
# SHORT=1 runs a quarter of these tests; DRY=1 shows packages and tests, INSTALL=1 installs, and both end. Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
lane=${1:-}
case "$lane" in
    oldest) change='\1==\2.*' python=3.10 ;;  # of `numpy>=1.26` any 1.26
    newest) change='\1>=\2' python=3.13 ;;
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
if [ ! -x "$environment/bin/python" ]; then
    interpreters=("${PYTHON:-python$python}")
    [ -n "${PYTHON:-}" ] || interpreters+=("${PYENV_ROOT:-$HOME/.pyenv}/versions/$python".*/bin/python)
    for interpreter in "${interpreters[@]}"; do
        "$interpreter" -c "" 2>/dev/null || continue
        "$interpreter" -m venv "$environment"
        break
    done
    [ -x "$environment/bin/python" ] || { echo "'${interpreters[0]}' does not run. Install it, or name another one with PYTHON." >&2; exit 3; }
fi
"$environment/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "${packages[@]}"
[ -z "${INSTALL:-}" ] || exit 0
OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest -q -n 2 -m "not slow" "${tests[@]}" "$@"
