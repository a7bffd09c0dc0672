"""scripts/environment.sh: what is installed, in which order, and that nothing is installed twice."""

import os
import re
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

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


def test_locked_versions_are_installed_by_their_hashes_alone(install, checkout):
    for name in ("requirements.lock", "requirements-dev.lock"):
        (checkout / name).write_text("numpy==2.0 --hash=sha256:00\n")
    assert install(LOCKED="1") == [".venv", "requirements.lock"]
    assert "--require-hashes" in (checkout / "log").read_text()
    assert install(LOCKED="1") == []
    assert install("requirements-dev.txt", LOCKED="1")[-1] == "requirements-dev.lock"
    assert install() == ["torch==2.13.0", "requirements.txt"]  # what is there is not what is asked for now


LOCKS = {"requirements.txt": "requirements.lock", "requirements-dev.txt": "requirements-dev.lock"}


def locked(name):
    """Return the versions of a lock by the names of packages, and how many hashes each has."""
    found = {}
    for entry in (tiny.ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        pinned, *hashes = entry.split()
        package, _, version = pinned.partition("==")
        assert version and hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), entry
        found[canonicalize_name(package)] = Version(version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_every_requirement_in_a_version_that_satisfies_it(name):
    versions = locked(LOCKS[name])
    project = (
        (tiny.ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("dependencies = [")[2].partition("]")[0]
    )
    lines = re.findall(r'"([^"]+)"', project)
    for file in {name, "requirements.txt"}:
        lines += [line for line in (tiny.ROOT / file).read_text(encoding="utf-8").split("\n") if line[:1].isalpha()]
    assert len(lines) > 20
    for line in lines:
        wanted = Requirement(line)
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier, line


def test_both_locks_have_the_same_versions():
    every = locked("requirements-dev.lock")
    assert all(every[package] == version for package, version in locked("requirements.lock").items())
    assert not [package for package in every if package.startswith("nvidia")]  # torch is the one for CPUs
