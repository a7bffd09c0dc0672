"""scripts/version_lane.sh and version_lanes.sh: versions are those of pyproject.toml, tests run in environments of their own."""

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


def lane(*arguments, **environment):
    return subprocess.run(["bash", str(SCRIPT), *arguments], env={**os.environ, **environment}, capture_output=True, text=True)  # fmt: skip


def test_packages_of_the_lanes_are_those_of_the_project():
    text = (tiny.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.findall(r'"([\w-]+)>=([\d.]+)"', text.partition("dependencies = [")[2].partition("]")[0])
    assert len(wanted) > 10
    oldest, newest = (lane(name, DRY="1").stdout.splitlines() for name in ("oldest", "newest"))
    assert oldest[: len(wanted)] == [f"{name}=={version}.*" for name, version in wanted]
    assert newest[: len(wanted)] == [f"{name}>={version}" for name, version in wanted]
    assert lane("oldest", DRY="1", TORCH="torch==2.7.0").stdout.splitlines()[:2] == ["torch==2.7.0", oldest[1]]


def test_the_short_lane_runs_some_of_the_tests():
    every, short = (
        [line for line in lane("oldest", DRY="1", **how).stdout.splitlines() if line.startswith("tests/")]
        for how in ({}, {"SHORT": "1"})
    )
    assert len(every) == len(short) == 5 and every != short
    assert all((tiny.ROOT / path).exists() for path in (*every, *short))
    assert all(any(path == whole or path.startswith(f"{whole}/") for whole in every) for path in short)


def test_another_lane_is_told():
    done = lane("middle")
    assert done.returncode == 2 and done.stderr == "Give 'oldest' or 'newest', not 'middle'.\n"


def test_an_interpreter_that_does_not_run_is_told(copied):
    done = subprocess.run(
        ["bash", str(copied / "scripts/version_lane.sh"), "oldest"],
        env={**os.environ, "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
    )
    told = "'no-such-python' does not run. Install it, or name another one with PYTHON."
    assert done.returncode == 3 and told in done.stderr


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
