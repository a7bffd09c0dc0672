"""A small campaign of faults breaks no promise, and one on a program that does not keep them says so."""

import os
import re
import subprocess
import sys

import pytest

from tests import tiny

pytestmark = pytest.mark.slow

DRIVER = """
import contextlib, sys, time
sys.path.insert(0, {scripts!r})
import fault_campaign, prepare_data
from basicsr.utils import checkpoint, image, locks

def campaign(kinds, targets, trials=1, more="twice=1", stop="0"):
    trials = ["--trials", str(trials), "--more", more, "--stop-seconds", stop]
    return fault_campaign.main(["--kinds", *kinds, *trials, "--targets", *targets])

def take_what_looks_old(file, seconds=0.0):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and time.time() - file.stat().st_mtime < 5:
        return None
    file.touch()
    return locks._NoLock()

@contextlib.contextmanager
def in_place(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path

kept = campaign(["kill", "full", "short", "read_only", "twice", "clock"], ["train, QAT", "prepare_data"], more="kill=2")
damaged = ["packed network (.safetensors)", "metrics.jsonl, continued", "ONNX graph, onnxruntime", "ONNX graph, openvino"]
kept += campaign(["damage", "kill"], [*damaged, "upscale, onnxruntime"])
kept += campaign(["worker"], ["train, full precision"])
kept += campaign(["stop"], ["train, QAT", "test"], stop="2")
locks.take_lock = take_what_looks_old
broken = campaign(["stop"], ["test"], trials=3, stop="6")
image.atomic_path = prepare_data.atomic_path = in_place
broken += campaign(["short"], ["prepare_data"], trials=3)
checkpoint.atomic_path = in_place
broken += campaign(["short"], ["train, QAT"])
print("kept", kept, "broken", broken)
"""


def test_promises_are_kept_and_writes_that_are_not_atomic_and_locks_that_are_taken_from_the_living_are_found():
    driver = DRIVER.format(scripts=str(tiny.ROOT / "scripts"))
    done = subprocess.run(
        [sys.executable, "-c", driver],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=tiny.PATIENCE,
    )
    assert "kept 0 broken 3" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
    assert "| SIGKILL | train, QAT | 2 | 2 | 0 | 0 | 0 |" in done.stdout
    assert "| clock set back | train, QAT | 1 | 1 | 0 | 0 | 0 |" in done.stdout
    assert "| bit flipped | ONNX graph, openvino | 1 | 0 | 1 | 0 | 0 |" in done.stdout
    assert "SIGSTOP for 6 s, test: fault: exit code 2 when the stop began, 0 when it ended" in done.stderr
    assert "length of files limited, prepare_data: fault: " in done.stderr
    assert re.search(r"length of files limited, train, QAT: fault: half written: .*\.(pth|state): ", done.stderr)
