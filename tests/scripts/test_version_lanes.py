"""scripts/version_lanes.sh: both lanes run in environments of their own; what cannot be installed is left out, what fails is an error."""

import os
import re
import shutil
import subprocess

import pytest

from tests import tiny

SCRIPT = tiny.ROOT / "scripts/version_lane.sh"
BOTH = tiny.ROOT / "scripts/version_lanes.sh"


@pytest.fixture
def copied(tmp_path):
    """Return the folder of a copy of both scripts, so that their environments come to lie there."""
    (tmp_path / "scripts").mkdir()
    for script in (SCRIPT, BOTH):
        shutil.copy(script, tmp_path / "scripts")
    shutil.copy(tiny.ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(script, **environment):
    variables = {**os.environ, **environment}
    return subprocess.run(["bash", str(script)], env=variables, capture_output=True, text=True)


def pretended_python(folder, status):
    """Return an interpreter whose environments install nothing, and whose tests end with a status."""
    made = folder / "python"
    made.write_text(
        "#!/usr/bin/env bash\n"
        'if [ "${2:-}" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
        f'if [ "${{2:-}}" = pytest ]; then echo "tests: ${{*: -2}}"; exit {status}; fi\n'
    )
    made.chmod(0o755)
    return str(made)


def test_lanes_that_cannot_be_installed_are_named_and_end_without_an_error(copied):
    done = run(copied / "scripts/version_lanes.sh", PYTHON="no-such-python")
    assert done.returncode == 0
    assert [f"The lane '{name}' was not run" in done.stderr for name in ("oldest", "newest")] == [True, True]


@pytest.mark.parametrize("status", [0, 1])
def test_both_lanes_run_their_tests_and_one_that_fails_is_an_error(copied, status):
    done = run(copied / "scripts/version_lanes.sh", PYTHON=pretended_python(copied, status))
    assert done.returncode == status
    assert done.stdout.count("tests: -p no:cacheprovider") == (1 if status else 2)
    assert "The lane 'oldest' with torch==2.7.0:" in done.stdout


def test_the_torch_of_the_tests_is_that_of_one_lane():
    default = re.search(r"TORCH:-(torch==[\d.]+)", (tiny.ROOT / "scripts/environment.sh").read_text(encoding="utf-8"))
    assert default is not None and f"[newest]={default[1]}" in BOTH.read_text(encoding="utf-8")
