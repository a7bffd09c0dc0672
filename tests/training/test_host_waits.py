"""Which operations make the host wait for a device; counted by hand, on a device without values."""

import pytest
import torch

from basicsr.training.host_waits import HostWaits, why_host_waits

aten = torch.ops.aten


class OnDevice(torch.Tensor):
    """A tensor that says of itself that it is on a GPU; operations on it are asked about, not carried out."""

    @property
    def device(self):
        return torch.device("cuda", 0)


def on_device(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype).as_subclass(OnDevice)


HOST, DEVICE = torch.zeros(3), on_device(3)
MASK, INDEX = on_device(3, dtype=torch.bool), on_device(2, dtype=torch.int64)
WAITS = [
    (aten._local_scalar_dense.default, (on_device(),), {}, "reads a value"),
    (aten.equal.default, (DEVICE, DEVICE), {}, "reads a value"),
    (aten.nonzero.default, (DEVICE,), {}, "shape that depends on values"),
    (aten.masked_select.default, (DEVICE, MASK), {}, "shape that depends on values"),
    (aten.bincount.default, (INDEX,), {}, "shape that depends on values"),
    (aten.index.Tensor, (DEVICE, [MASK]), {}, "size depends on values"),
    (aten.index_put_.default, (DEVICE, [None, MASK], DEVICE), {}, "size depends on values"),
    (aten._to_copy.default, (DEVICE,), {"device": "cpu"}, "copies to the host"),
    (aten._to_copy.default, (DEVICE,), {"device": "cpu", "non_blocking": True}, "copies to the host"),
    (aten._to_copy.default, (HOST,), {"device": "cuda:0"}, "copies to the device and waits"),
    (aten.copy_.default, (HOST, DEVICE), {}, "copies to the host"),
    (aten.copy_.default, (HOST, DEVICE, True), {}, "copies to the host"),
    (aten.copy_.default, (DEVICE, HOST), {}, "copies to the device and waits"),
]
GOES_ON = [
    (aten._local_scalar_dense.default, (torch.zeros(()),), {}),
    (aten.nonzero.default, (HOST,), {}),
    (aten.add.Tensor, (DEVICE, DEVICE), {}),
    (aten.index.Tensor, (DEVICE, [INDEX]), {}),
    (aten.index_put_.default, (DEVICE, [INDEX], DEVICE), {}),
    (aten._to_copy.default, (DEVICE,), {"dtype": torch.float16}),
    (aten._to_copy.default, (HOST,), {"device": "cuda:0", "non_blocking": True}),
    (aten._to_copy.default, (HOST,), {"device": "cpu"}),
    (aten.copy_.default, (DEVICE, HOST), {"non_blocking": True}),
    (aten.copy_.default, (DEVICE, DEVICE), {}),
]


@pytest.mark.parametrize(("operation", "args", "kwargs", "reason"), WAITS)
def test_what_makes_the_host_wait(operation, args, kwargs, reason):
    assert reason in why_host_waits(operation, args, kwargs)


@pytest.mark.parametrize(("operation", "args", "kwargs"), GOES_ON)
def test_what_lets_it_go_on(operation, args, kwargs):
    assert why_host_waits(operation, args, kwargs) is None


class ReadsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * gradient.sum().item()


def test_each_wait_is_counted_with_its_place_in_backward_passes_too(monkeypatch):
    monkeypatch.setattr("basicsr.training.host_waits.is_on_device", lambda leaf: isinstance(leaf, torch.Tensor))
    x = torch.rand(4, requires_grad=True)
    with HostWaits() as looked_at:
        loss = ReadsInBackward.apply(x).sum()
        for _ in range(3):
            loss.item()
        loss.backward()
        x.detach()[x.detach() > 0.5]
        x.detach() * 2
    counted = {place.split(" in ")[1]: number for place, number in looked_at.by_place.items()}
    here = "test_each_wait_is_counted_with_its_place_in_backward_passes_too"
    assert counted == {
        f"{here} reads a value on the host (aten::_local_scalar_dense)": 3,
        "backward reads a value on the host (aten::_local_scalar_dense)": 1,
        f"{here} takes a part whose size depends on values (aten::index.Tensor)": 1,
    }
    assert all(__file__.rpartition("/")[2] in place for place in looked_at.by_place)
    x.sum().item()
    assert len(looked_at.waits) == 5
