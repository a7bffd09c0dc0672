"""The first tensor that is not finite is named, whatever follows from it."""

import pytest
import torch
from torch import nn

from basicsr.training.not_finite import LossWatch, first_not_finite, parameter_not_finite
from tests.quant.networks import TinyEdsr

NAN = float("nan")


@pytest.fixture
def network():
    return TinyEdsr()


@pytest.fixture
def x():
    return torch.rand(1, 3, 4, 4)


def test_a_parameter(network, x):
    for name in ("body.2.conv1.bias", "body.1.conv2.weight"):
        network.get_parameter(name).data.view(-1)[0] = NAN
    assert "the parameter 'body.1.conv2.weight'" in first_not_finite(network, x)


def test_a_buffer(network, x):
    network.body[0].register_buffer("mean", torch.tensor(NAN))
    assert "the buffer 'body.0.mean'" in first_not_finite(network, x)


def test_an_activation(network, x):
    network.body[1].conv1.weight.data.fill_(3e38)
    assert "the activation that 'body.1.conv1' (Conv2d) puts out" in first_not_finite(network, x)


def test_the_input(network, x):
    x[0, 0, 0, 0] = NAN
    assert "input of the network" in first_not_finite(network, x)


def test_the_gradient_where_the_backward_pass_went_wrong(network, x):
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for name in ("conv_first.weight", "body.0.conv2.weight"):
        network.get_parameter(name).grad.fill_(NAN)
    assert "gradient of 'body.0.conv2.weight'" in first_not_finite(network, x)


def test_nothing_and_no_hook_is_left(network, x):
    assert "All activations and parameters" in first_not_finite(network, x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_the_watch_tells_the_first_loss():
    watch = LossWatch()
    watch.start({"a": torch.tensor(1.0), "b": torch.tensor(float("inf")), "c": torch.tensor(NAN)})
    assert watch.first_not_finite() == ("b", float("inf"))
    watch.start({"a": torch.tensor(2.0, requires_grad=True)})
    assert watch.first_not_finite() is None


def test_the_first_parameter_that_is_not_finite_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert parameter_not_finite(network) is None
    with torch.no_grad():
        network[1].bias[1] = torch.inf
        assert parameter_not_finite(network) == "1.bias"
        network[0].weight[0, 1] = torch.nan
        assert parameter_not_finite(network) == "0.weight"
