"""Memory that is kept: a process takes no new pages for tensors of a size that it has had before, and gives them back when it is told to.

Each has a process of its own, whose heap no other test has cut into pieces.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basicsr.utils.memory import keep_freed_memory, release_freed_memory

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are counted on Linux")


def resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def work():
    x = torch.ones(10_000_000)  # 40 MB: by default glibc maps what is above 32 MB anew each time
    return (x + 1) * (x - 1)


def pages_of_work():
    """Return how many new pages ten pieces of work take, once the process is warm."""
    import resource  # noqa: PLC0415 -- of Unix alone

    for _ in range(3):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def memory_of_blocks():
    """Return what the process holds of 200 MB, of which small blocks lie between large ones: all, without the large, and when told."""
    blocks = [torch.ones(n) for n in (500_000, 1_000) * 100]
    held = [resident()]
    del blocks[::2]
    held.append(resident())
    release_freed_memory()
    held.append(resident())
    assert all(bool((block == 1).all()) for block in blocks)
    return held


def kept(name):
    """Return what a function of this file gives where freed memory is kept; None where it cannot be."""
    return globals()[name]() if keep_freed_memory() else None


def in_a_process(measure):
    """Return what a function of this file gives in a new process that keeps freed memory."""
    program = f"import json, runpy; here = runpy.run_path({__file__!r}); print(json.dumps(here['kept']({measure.__name__!r})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout)
    if measured is None:
        pytest.skip("the C library is not glibc")
    return measured


def test_pages_are_touched_once():
    touched_anew = 10 * 4 * 40_000_000 // PAGE
    assert in_a_process(pages_of_work) < touched_anew / 5  # the heap grows a few times until its pieces fit


def test_freed_pages_between_blocks_in_use_are_given_back():
    used, kept, released = in_a_process(memory_of_blocks)
    assert kept > used - 20_000_000
    assert released < used - 150_000_000
