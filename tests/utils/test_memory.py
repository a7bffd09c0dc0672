"""Memory that is kept: a process takes no new pages for tensors of a size that it has had before."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from basicsr.utils.memory import keep_freed_memory

torch.set_num_threads(1)
if {keep}:
    print(keep_freed_memory())

def work():
    x = torch.ones(10_000_000)  # 40 MB: glibc maps what is above 32 MB anew each time
    return (x + 1) * (x - 1)

for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(keep):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are counted on Linux")
def test_pages_are_touched_once():
    (default,) = run(keep=False)
    kept, pages = run(keep=True)
    if kept == "False":
        pytest.skip("the C library is not glibc")
    assert int(pages) < int(default) / 5  # the heap grows a few times until its pieces fit
