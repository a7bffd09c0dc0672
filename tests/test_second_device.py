"""Runs the lanes of the second device in processes of their own: a device can be registered only before the first backward pass of a process."""

import subprocess
import sys

import pytest

from tests import tiny
from tests.second_device import REGISTER


@pytest.mark.slow
@pytest.mark.skipif(REGISTER is None, reason="torch registers such devices from version 2.10 on")
@pytest.mark.parametrize("lane", sorted(file.name for file in (tiny.ROOT / "tests").glob("second_device_*lane.py")))
def test_a_second_device_gives_the_bits_of_the_first_and_waits_where_it_must(lane):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{lane}"]
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=tiny.PATIENCE)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout
