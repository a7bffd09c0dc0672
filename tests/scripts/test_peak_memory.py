"""The peak of memory is of the program alone, and can begin anew; each in a process that has no freed pages to touch again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import peak_memory

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PART = 300 * 2**20  # bytes
PROGRAM = f"""
import json
import numpy as np
from benchmarks.peak_memory import forget_peak, peak_memory
peaks = [peak_memory()]
held = np.ones({PART}, dtype=np.uint8)
peaks.append(peak_memory())
del held
peaks.append(peak_memory())
forget_peak()
peaks.append(peak_memory())
print(json.dumps(peaks))
"""


def test_a_program_does_not_report_its_parent():
    held = np.ones(PART, dtype=np.uint8)
    command = [sys.executable, "-c", "from benchmarks.peak_memory import peak_memory; print(peak_memory())"]
    done = subprocess.run(command, cwd=SCRIPTS, stdout=subprocess.PIPE, text=True, check=True)
    assert peak_memory() > held.nbytes
    assert 2**20 < int(done.stdout) < PART


def test_pages_that_are_touched_count_until_the_peak_begins_anew():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=SCRIPTS, stdout=subprocess.PIPE, text=True, check=True)
    before, peak, freed, anew = json.loads(done.stdout)
    assert 0.9 * PART < peak - before < 1.5 * PART
    assert freed - before > 0.9 * PART
    assert anew < peak - PART / 2
