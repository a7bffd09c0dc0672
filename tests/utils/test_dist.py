"""What processes do together, where one of them is gone."""

import subprocess
import sys

import pytest
import torch

from basicsr.utils import dist
from basicsr.utils.errors import TrainingError
from tests import tiny


def test_another_process_that_has_ended_is_told_in_a_sentence(monkeypatch):
    def closed(*_arguments, **_more):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711\nframe #0")

    monkeypatch.setattr(dist, "world_size", lambda: 2)
    for name in ("barrier", "broadcast", "all_reduce", "all_gather_object", "broadcast_object_list"):
        monkeypatch.setattr(dist.torch_dist, name, closed)
    tensors = [torch.zeros(2, requires_grad=True)]
    for call in (
        dist.barrier,
        lambda: dist.broadcast_tensors(tensors),
        lambda: dist.broadcast_object(1),
        lambda: dist.average_gradients(tensors),
        lambda: dist.any_process(False),
    ):
        with pytest.raises(TrainingError, match=r"peer \[127.0.0.1\]:4711\).*--auto_resume"):
            call()


LEFT = """
import os, pathlib, torch
from basicsr.utils import dist

def threads():  # not by their names, which they give themselves some time after their start
    return len(list(pathlib.Path("/proc/self/task").iterdir()))

before = threads()
dist.init_distributed("pytorch", torch.device("cpu"))
dist.barrier()
assert threads() > before
import torch._dynamo  # as an optimizer does in its first step
dist.close_distributed()
after = threads()
assert after == before, (after, before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the threads of a process are listed in /proc")
def test_no_thread_of_the_process_group_is_left_to_end_with_the_interpreter(tmp_path):
    """A thread that is left can abort the process after all its work is done."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    script = tmp_path / "left.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(tiny.ROOT)!r})\n{LEFT}")
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, timeout=tiny.PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
