"""Memory that is kept: a process takes no new pages for tensors of a size that it has had before."""

import sys

import pytest
import torch

from basicsr.utils.memory import keep_freed_memory

PAGE = 4096


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
