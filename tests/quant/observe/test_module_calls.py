"""Calls of single modules: arguments, outputs, and gradients at outputs."""

import pytest
import torch
from torch import nn

from basicsr.quant.observe.module_calls import call_module, capture_call, gradient_at_output, observe_calls
from basicsr.quant.spec import QuantizationError


class Mix(nn.Module):
    def forward(self, a, size, *, b):
        return a * size[0] + b


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.mix, self.last, self.unused = nn.Linear(4, 4), Mix(), nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(self.mix(self.first(x), (2, 3), b=x).tanh())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def hooks_of(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_a_call_is_captured_with_all_arguments_and_can_be_repeated(network):
    x, runs = torch.randn(5, 4), []
    network.last.register_forward_hook(lambda *_: runs.append(1))
    call = capture_call(network, "mix", x)
    assert not runs and hooks_of(network) == 1
    assert list(call.tensors) == [0, "b"] and call.constants == {1: (2, 3)}
    assert torch.equal(call.output, network.first(x) * 2 + x)
    assert torch.equal(call_module(network.mix, call.arguments), call.output)


def test_all_calls_are_observed_in_order(network):
    seen = []
    with observe_calls(network, ["last", "first"], lambda name, call: seen.append((name, call.output.shape[1]))):
        network(torch.randn(2, 4))
    assert seen == [("first", 4), ("last", 3)] and hooks_of(network) == 0


def test_the_gradient_at_an_output(network):
    x = torch.randn(5, 4)
    gradient = gradient_at_output(network.requires_grad_(False), "mix", x, lambda y: y.square().sum())
    z = capture_call(network, "mix", x).output.requires_grad_()
    network.last(z.tanh()).square().sum().backward()
    torch.testing.assert_close(gradient, z.grad)
    assert hooks_of(network) == 0


def test_modules_that_do_not_exist_or_do_not_run_are_named(network):
    with pytest.raises(QuantizationError, match="no module 'frist'. Did you mean 'first'"):
        capture_call(network, "frist", torch.randn(1, 4))
    with pytest.raises(QuantizationError, match="does not call its module 'unused'"):
        capture_call(network, "unused", torch.randn(1, 4))
    assert hooks_of(network) == 0
