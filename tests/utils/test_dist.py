"""What processes do together, where one of them is gone."""

import pytest
import torch

from basicsr.utils import dist
from basicsr.utils.errors import TrainingError


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
