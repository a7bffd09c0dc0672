"""Runs the lanes of the second device in processes of their own: a device can be registered only before the first backward pass of a process."""

import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from tests import tiny
from tests.devices import cuda_without_a_gpu
from tests.devices.second import skipped

LANES = tiny.ROOT / "tests/devices"
pytestmark = pytest.mark.slow


def run_lane(*arguments, **environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=tiny.PATIENCE, env=variables)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout


@pytest.fixture(scope="module")
def on_cuda(tmp_path_factory):
    """Return a function that runs a lane on a device called `cuda`; None where torch cannot be told that there is one."""
    if torch.version.cuda is not None or shutil.which("c++") is None:  # CUDA's own library asks for a driver
        return None
    library = cuda_without_a_gpu.compiled_library(tmp_path_factory.mktemp("library"))
    return partial(run_lane, "-p", "tests.devices.cuda_without_a_gpu", **{cuda_without_a_gpu.LIBRARY: str(library)})


@skipped
@pytest.mark.parametrize("lane", sorted(file.name for file in LANES.glob("lane_of_*.py")))
def test_a_second_device_gives_the_bits_of_the_first_and_waits_where_it_must(lane, on_cuda):
    (on_cuda or run_lane)(f"tests/devices/{lane}")


@pytest.mark.parametrize("lane", sorted(file.name for file in LANES.glob("cuda_lane_of_*.py")))
def test_a_device_called_cuda_takes_steps_in_bfloat16_and_with_fake_tensors(lane, on_cuda):
    if on_cuda is None:
        pytest.skip("it takes a torch for CPUs and a C++ compiler")
    on_cuda(f"tests/devices/{lane}")


@skipped
def test_steps_on_a_device_of_another_name_do_the_same(on_cuda):
    if on_cuda is None:
        pytest.skip("this is the device that the other tests had")
    run_lane("tests/devices/lane_of_steps.py")
