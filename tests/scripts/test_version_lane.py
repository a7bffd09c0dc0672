"""scripts/version_lane.sh: the versions of each lane are those of pyproject.toml, and an interpreter that does not run is told."""

import os
import re
import shutil
import subprocess

from tests import tiny

SCRIPT = tiny.ROOT / "scripts/version_lane.sh"


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


def test_an_interpreter_that_does_not_run_is_told(tmp_path):
    (tmp_path / "scripts").mkdir()
    for file in ("scripts/version_lane.sh", "pyproject.toml"):
        shutil.copy(tiny.ROOT / file, tmp_path / file)
    done = subprocess.run(
        ["bash", str(tmp_path / "scripts/version_lane.sh"), "oldest"],
        env={**os.environ, "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
    )
    told = "'no-such-python' does not run. Install it, or name another one with PYTHON."
    assert done.returncode == 3 and told in done.stderr
