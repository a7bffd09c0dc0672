"""scripts/gpu_check.sh: a sentence where there is no GPU; on one, each of its commands is known and the limits keep to eight minutes."""

import os
import subprocess
import sys

import pytest

from basicsr.utils.options import load_options
from tests import tiny


def check(folder, interpreter, **environment):
    command = ["bash", str(tiny.ROOT / "scripts/gpu_check.sh"), str(folder)]
    everything = {**os.environ, "PYTHON": str(interpreter), **environment}
    return subprocess.run(command, env=everything, cwd="/", capture_output=True, text=True)


@pytest.fixture
def interpreter(tmp_path):
    """A stand-in for an interpreter on a machine with a GPU, which writes its arguments down and fails where it is told to."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\ncase "$*" in *"$FAILS"*) exit 7 ;; esac\n')
    file.chmod(0o755)
    return file


@pytest.mark.slow
def test_without_a_gpu_it_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # torch sees none then, on any machine
    done = check(tmp_path / "out", sys.executable)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "This machine has no CUDA device that torch can use, so that nothing was checked.\n"
    assert not (tmp_path / "out").exists()


def test_without_an_interpreter_it_ends_in_a_sentence(tmp_path):
    done = check(tmp_path / "out", tmp_path / "none")
    assert done.returncode == 2 and done.stderr.startswith("There is no interpreter")


def test_every_step_is_run_and_told(tmp_path, interpreter):
    done = check(tmp_path / "out", interpreter, FAILS="no such argument")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in (tmp_path / "out/summary.txt").read_text().splitlines()] == [
        "tests", "benchmarks", "train", "test"
    ]  # fmt: skip
    failed = check(tmp_path / "more", interpreter, FAILS="basicsr/train.py")
    assert failed.returncode == 1 and "train: exit code 7 after" in failed.stdout
    assert "test: exit code 0" in failed.stdout  # one that fails stops no other


def test_its_commands_are_known_and_keep_to_eight_minutes(tmp_path):
    lines = check(tmp_path, "python", DRY="1").stdout.splitlines()
    assert sum(int(line.split()[1]) for line in lines) < 8 * 60
    for line in lines:
        words = line.split()[3:]
        if "-opt" in words:
            overrides = words[words.index("--force_yml") + 1 :]
            options = load_options(tiny.ROOT / words[words.index("-opt") + 1], overrides, tell=False)
            assert options.device == "cuda" and options.name == "gpu_check"
        elif words[0].endswith(".py"):
            for name in words[1:]:
                assert (tiny.ROOT / f"scripts/benchmarks/{name}_benchmark.py").is_file()
