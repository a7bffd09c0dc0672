"""What a CUDA graph cannot hold is refused with its place; every tensor here counts as one of a device, unless it says that it is of the host."""

import itertools
import random

import pytest
import torch

from basicsr.training.recordable import RecordingError, require_recordable


class OfHost(torch.Tensor):
    """A tensor that stays on the host."""


@pytest.fixture(autouse=True)
def all_on_device(monkeypatch):
    def is_on_device(leaf):
        return isinstance(leaf, torch.Tensor) and not isinstance(leaf, OfHost)

    for module in ("host_waits", "recordable"):
        monkeypatch.setattr(f"basicsr.training.{module}.is_on_device", is_on_device)


X = torch.rand(4, requires_grad=True)
COUNTER = itertools.count()
NUMBER = torch.tensor(3.0).as_subclass(OfHost)


def branch():
    return X * 2 if X.sum() > 0 else X


def mask():
    return X[X > 0.5]


def random_number_of_python():
    return X * random.random()


def number_that_grows():
    return X.detach() ** next(COUNTER)


def now_and_then():
    return X + X if next(COUNTER) % 2 else X * X


def one_more():
    return [X * 2 for _ in range(1 + next(COUNTER) % 2)]


def value_of_the_host():
    return torch.add(X, NUMBER)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (branch, r"test_recordable.py:\d+ in branch reads a value on the host"),
        (mask, r"in mask takes a part whose size depends on values"),
        (random_number_of_python, "in random_number_of_python asks for aten::mul.*other numbers"),
        (number_that_grows, "in number_that_grows asks for aten::pow.*other numbers"),
        (now_and_then, "in now_and_then asks for aten::.* where the pass before asked for aten::"),
        (one_more, "one pass has [12] operations on the device, the next [12]"),
        (value_of_the_host, "in value_of_the_host takes a value from the host"),
    ],
)
def test_what_a_recording_would_not_repeat_is_refused(step, reason):
    with pytest.raises(RecordingError, match=reason):
        require_recordable(step)


def test_kernels_alone_can_be_recorded():
    def step():
        X.grad = None
        (torch.nn.functional.gelu(X * 3 + 1).clamp(0, 1) ** 2).mean().backward()

    require_recordable(step)
