"""scripts/environment.sh: what is installed, in which order, and that nothing is installed twice."""

import os
import shutil
import subprocess

import pytest

from tests import tiny

INTERPRETER = """#!/bin/sh
# notes what is asked of it; `-m venv` makes an environment with the same interpreter
echo "$@" >> {log}
case "$*" in "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;; *"{fails}"*) exit 1 ;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the script, two files of requirements and an interpreter that writes down its arguments."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(tiny.ROOT / "scripts/environment.sh", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("torch\nnumpy\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\npytest\n")
    return tmp_path


@pytest.fixture
def install(checkout):
    def call(*arguments, fails="nothing that is asked", **environment):
        interpreter, log = checkout / "python", checkout / "log"
        interpreter.write_text(INTERPRETER.format(log=log, fails=fails))
        interpreter.chmod(0o755)
        if (checkout / ".venv").exists():
            shutil.copy(interpreter, checkout / ".venv/bin/python")
        log.write_text("")
        command = ["bash", str(checkout / "scripts/environment.sh"), *arguments]
        everything = {**os.environ, "PYTHON": str(interpreter), **environment}
        done = subprocess.run(command, env=everything, cwd="/", capture_output=True, text=True)
        assert (done.returncode != 0) == (fails in log.read_text()), done.stderr
        return [line.split()[-1] for line in log.read_text().splitlines()]

    return call


def test_torch_comes_first(install):
    assert install() == [".venv", "torch==2.13.0", "requirements.txt"]


def test_a_torch_of_ones_own(install):
    assert install(TORCH="torch==2.9.0+cu128")[1] == "torch==2.9.0+cu128"


def test_nothing_is_installed_twice(install):
    install()
    assert install() == []


def test_the_quickstart_installs_nothing_after_the_tests(install):
    assert install("requirements-dev.txt")[-1] == "requirements-dev.txt"
    assert install("requirements-dev.txt") == install() == []


def test_the_tests_install_what_the_quickstart_did_not(install):
    install()
    assert install("requirements-dev.txt") == ["torch==2.13.0", "requirements-dev.txt"]


def test_changed_requirements_are_installed(install, checkout):
    install("requirements-dev.txt")
    with open(checkout / "requirements.txt", "a") as file:
        file.write("tqdm\n")
    assert install("requirements-dev.txt") == ["torch==2.13.0", "requirements-dev.txt"]


def test_what_failed_is_tried_again(install):
    install(fails="-r requirements.txt")
    assert install() == ["torch==2.13.0", "requirements.txt"]


def test_an_environment_without_its_interpreter_is_made_again(install, checkout):
    install()
    (checkout / ".venv/bin/python").unlink()
    environment = {**os.environ, "PYTHON": str(checkout / "python")}
    subprocess.run(["bash", str(checkout / "scripts/environment.sh")], env=environment, check=True)
    assert "-m venv" in (checkout / "log").read_text()
