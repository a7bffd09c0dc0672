"""A small campaign of faults breaks no promise, and one on a program that does not keep them says so."""

import os
import re
import subprocess
import sys

import pytest

from tests import tiny

pytestmark = pytest.mark.slow

DRIVER = """
import contextlib, sys
sys.path.insert(0, {scripts!r})
import fault_campaign, prepare_data
from basicsr.utils import checkpoint, image

def campaign(kinds, targets, trials=1, more="twice=1"):
    return fault_campaign.main(["--kinds", *kinds, "--trials", str(trials), "--more", more, "--targets", *targets])

@contextlib.contextmanager
def in_place(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path

kept = campaign(["kill", "full", "short", "read_only", "twice", "clock"], ["train, QAT", "prepare_data"], more="kill=2")
kept += campaign(["damage"], ["packed network (.safetensors)", "metrics.jsonl, continued"])
kept += campaign(["worker"], ["train, full precision"])
image.atomic_path = prepare_data.atomic_path = in_place
broken = campaign(["short"], ["prepare_data"], trials=3)
checkpoint.atomic_path = in_place
broken += campaign(["short"], ["train, QAT"])
print("kept", kept, "broken", broken)
"""


def test_promises_are_kept_and_a_write_that_is_not_atomic_is_found():
    driver = DRIVER.format(scripts=str(tiny.ROOT / "scripts"))
    done = subprocess.run(
        [sys.executable, "-c", driver],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=tiny.PATIENCE,
    )
    assert "kept 0 broken 2" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
    assert "| SIGKILL | train, QAT | 2 | 2 | 0 | 0 | 0 |" in done.stdout
    assert "| clock set back | train, QAT | 1 | 1 | 0 | 0 | 0 |" in done.stdout
    assert "length of files limited, prepare_data: fault: " in done.stderr
    assert re.search(r"length of files limited, train, QAT: fault: half written: .*\.(pth|state): ", done.stderr)
