"""scripts/lock_requirements.sh: both locks are made of the files of requirements, with torch for CPUs, and replaced together or not at all."""

import os
import shutil
import subprocess

import pytest

from tests import tiny

UV = """#!/bin/sh
# notes the requirements that it is given, and writes the file behind -o
for last in "$@"; do :; done
case "$*" in *requirements-dev.txt*) ;; *) grep torch "$(echo "$*" | grep -o '[^ ]*requirements.txt')" >> {log} ;; esac
case "$*" in *"{fails}"*) exit 1 ;; esac
echo "$@" > "$last"
"""


@pytest.mark.parametrize("fails", ["nothing", "/requirements.txt"])
def test_both_locks_are_written_together(tmp_path, fails):
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/lock_requirements.sh", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(tiny.ROOT / name, tmp_path / name)
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(UV.format(log=tmp_path / "log", fails=fails))
    uv.chmod(0o755)
    environment = {**os.environ, "PATH": f"{uv.parent}:{os.environ['PATH']}", "PIP_FIND_LINKS": "/my/wheels"}
    done = subprocess.run(["bash", str(tmp_path / "scripts/lock_requirements.sh")], env=environment, cwd="/")
    assert (tmp_path / "log").read_text() == "torch==2.13.0+cpu\n"
    locks = sorted(file.name for file in tmp_path.glob("*.lock"))
    if fails == "nothing":
        assert done.returncode == 0 and locks == ["requirements-dev.lock", "requirements.lock"]
        assert "--find-links /my/wheels" in (tmp_path / "requirements.lock").read_text()
    else:
        assert done.returncode == 1 and locks == []
