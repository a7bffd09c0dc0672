"""Runs the lanes of the second device in processes of their own: a device can be registered only before the first backward pass of a process."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from tests import tiny
from tests.devices import cuda_without_a_gpu
from tests.devices.second import skipped

LANES = tiny.ROOT / "tests/devices"
pytestmark = pytest.mark.slow


def run_lane(file, *arguments, **environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, f"tests/devices/{file}"]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=tiny.PATIENCE, env=variables)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if torch.version.cuda is not None:
        pytest.skip("this torch is built for CUDA, whose own library asks for a driver")
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    return cuda_without_a_gpu.compiled_library(tmp_path_factory.mktemp("library"))


@skipped
@pytest.mark.parametrize("lane", sorted(file.name for file in LANES.glob("lane_of_*.py")))
def test_a_second_device_gives_the_bits_of_the_first_and_waits_where_it_must(lane):
    run_lane(lane)


@pytest.mark.parametrize("lane", sorted(file.name for file in LANES.glob("*lane_of_*.py")))
def test_a_device_with_the_name_of_a_gpu_does_as_well(lane, library):
    run_lane(lane, "-p", "tests.devices.cuda_without_a_gpu", **{cuda_without_a_gpu.LIBRARY: str(library)})
