"""The peak of memory is of the program alone, and can begin anew."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import forget_peak, peak_memory

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PART = 300 * 2**20  # bytes


def test_a_program_does_not_report_its_parent():
    held = np.ones(PART, dtype=np.uint8)
    command = [sys.executable, "-c", "from benchmarks.peak_memory import peak_memory; print(peak_memory())"]
    done = subprocess.run(command, cwd=SCRIPTS, stdout=subprocess.PIPE, text=True, check=True)
    assert peak_memory() > held.nbytes
    assert 2**20 < int(done.stdout) < PART


def test_the_peak_begins_anew():
    before = peak_memory()
    held = np.ones(PART, dtype=np.uint8)
    peak = peak_memory()
    assert peak >= before and peak > held.nbytes
    del held
    forget_peak()
    assert peak_memory() < peak - PART / 2


def test_pages_that_are_touched_count():
    forget_peak()
    before = peak_memory()
    held = np.ones(PART, dtype=np.uint8)
    assert 0.9 * PART < peak_memory() - before < 1.5 * PART
    del held
