"""Squared derivatives of a network's output by what its quantizers quantize."""

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.output_gradients import squared_gradients


class Chain(nn.Module):
    """A convolution of each pixel by a number of its own, another one that sees all channels, and one whose output is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 3, 1, groups=3), nn.Conv2d(3, 4, 1)
        self.lost = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        x = self.first(x)
        self.lost(x)
        return self.second(x)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(3, 8)

    def forward(self, x):
        return self.qkv(x.movedim(1, -1)).movedim(-1, 1)


def quantized(network):
    rule = (
        CoverageRule("*", "QConv2d")
        if isinstance(network, Chain)
        else CoverageRule("qkv", "QSplitLinear", split=("q", "k"))
    )
    insert_quantizers(network, [rule], 4, 4)
    return network.eval()


def measured(network, names, image, draws=1):
    generator = torch.Generator().manual_seed(0)
    found = {}
    for _ in range(draws):
        for name, x, weights in squared_gradients(network, names, image, generator):
            known = found.get(name, (x, 0))[1]
            found[name] = x, known + weights / draws
    return found


@pytest.fixture
def image():
    return torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def test_the_mean_over_draws_is_the_squared_column_of_the_jacobian(image):
    network = quantized(Chain())
    found = measured(network, ["first.act_quantizer", "second.act_quantizer"], image, draws=2000)
    of_second = network.second.weight.flatten(1).square().sum(0).view(1, 3, 1, 1)
    of_first = of_second * network.first.weight.view(1, 3, 1, 1).square()
    for name, wanted in (("second", of_second), ("first", of_first)):
        x, weights = found[f"{name}.act_quantizer"]
        assert weights.shape == x.shape == image.shape
        torch.testing.assert_close(weights.mean((0, 2, 3), keepdim=True), wanted.detach(), rtol=0.02, atol=0)
    torch.testing.assert_close(found["first.act_quantizer"][0], image)


def test_what_does_not_reach_the_output_weighs_nothing(image):
    found = measured(quantized(Chain()), ["lost.act_quantizer"], image)
    assert not found["lost.act_quantizer"][1].any()


def test_parts_with_one_input_are_one_quantizer(image):
    network = quantized(Parts())
    found = measured(network, ["qkv.q.act_quantizer"], image, draws=2000)
    wanted = network.qkv.weight.square().sum(0)
    torch.testing.assert_close(found["qkv.q.act_quantizer"][1].mean((0, 1, 2)), wanted.detach(), rtol=0.02, atol=0)


def test_the_network_is_left_as_it_was(image):
    network = quantized(Chain())
    network.second.weight.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    with torch.no_grad():
        measured(network, ["first.act_quantizer"], image)
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == before
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(quantizer.bypass for _, quantizer in named_quantizers(network))
    assert not any(quantizer._forward_pre_hooks for _, quantizer in named_quantizers(network))


def test_no_names_need_no_derivatives(image):
    assert measured(quantized(Chain()), [], image) == {}
