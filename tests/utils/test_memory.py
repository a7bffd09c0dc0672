"""Memory that is kept: a process takes no new pages for tensors of a size that it has had before, and gives them back when it is told to."""

import sys
from pathlib import Path

import pytest
import torch

from basicsr.utils.memory import keep_freed_memory, release_freed_memory

PAGE = 4096


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def work():
    x = torch.ones(10_000_000)  # 40 MB: by default glibc maps what is above 32 MB anew each time
    return (x + 1) * (x - 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are counted on Linux")
def test_pages_are_touched_once():
    import resource  # noqa: PLC0415 -- of Unix alone

    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    for _ in range(3):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        work()
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    touched_anew = 10 * 4 * 40_000_000 // PAGE
    assert pages < touched_anew / 5  # the heap grows a few times until its pieces fit


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are counted on Linux")
def test_freed_pages_between_blocks_in_use_are_given_back():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    blocks = [
        torch.ones(n) for n in (500_000, 1_000) * 100
    ]  # 200 MB, and small ones that keep the end of the heap where it is
    used = resident()
    del blocks[::2]
    assert resident() > used - 20_000_000  # kept
    release_freed_memory()
    assert resident() < used - 150_000_000
    assert all(bool((block == 1).all()) for block in blocks)
