"""Integer layers agree with the fake-quantized ones, borders included."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.deploy.integer import integer_network
from basicsr.quant.insertion.insert import CoverageRule, insert_quantizers
from basicsr.quant.modules.base import QModule
from basicsr.quant.spec import QuantizationError
from tests.deploy.networks import EDSR, IMAGE, calibrated
from tests.quant.helpers import set_min_max_bounds


@pytest.mark.parametrize("insertion", [{}, {"weight_granularity": "per_channel"}, {"weight_symmetric": True}], ids=str)
@pytest.mark.parametrize(("coverage", "bits"), [("2dquant", 4), ("2dquant", 2), ("full", 3), ("full", 8)])
def test_layer_by_layer_an_integer_network_agrees(coverage, bits, insertion):
    compare_layers(calibrated(coverage, bits, **insertion)[0])


@pytest.mark.parametrize("coverage", ["body_and_skips", "all_and_skips"])
def test_sums_of_an_integer_network_agree(coverage):
    compare_layers(calibrated(coverage, 3, options=EDSR)[0])


def compare_layers(network):
    integer = integer_network(network)
    modules = dict(network.named_modules())
    checked = []

    def compare(name):
        def hook(module, inputs, output):
            expected = modules[name](*inputs)
            atol = 1e-5 * max(1.0, float(expected.abs().max()))  # of networks that compute in 0..255
            torch.testing.assert_close(output, expected, rtol=1e-5, atol=atol)
            checked.append(name)

        return hook

    quantized = [name for name, module in modules.items() if isinstance(module, QModule)]
    for name in quantized:
        integer.get_submodule(name).register_forward_hook(compare(name))
    with torch.no_grad():
        integer(IMAGE)
    assert sorted(checked) == sorted(quantized)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 2),
    bits=st.integers(2, 8),
    seed=st.integers(0, 999),
)
def test_convolutions_of_any_geometry_agree(kernel, stride, padding, dilation, bits, seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, kernel, stride, padding, dilation), nn.PReLU())
    x = torch.randn(2, 3, 11, 9) + 1.5  # zero is not in the middle of the range, often not in it at all
    insert_quantizers(network, [CoverageRule("*", "QConv2d")], bits, bits, weight_granularity="per_channel")
    set_min_max_bounds(network, x)
    with torch.no_grad():
        torch.testing.assert_close(integer_network(network)(x), network(x), rtol=1e-5, atol=1e-5)


def test_the_network_itself_is_left_alone():
    network, _ = calibrated()
    state = copy.deepcopy(network.state_dict())
    integer_network(network)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert any(isinstance(module, QModule) for module in network.modules())


def test_what_has_no_integer_form_is_refused():
    network, _ = calibrated(activation_granularity="per_channel")
    with pytest.raises(QuantizationError, match="per channel; integer layers need per-tensor activations"):
        integer_network(network)
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    insert_quantizers(grouped, [CoverageRule("*", "QConv2d")], 4, 4)
    set_min_max_bounds(grouped, torch.randn(1, 4, 8, 8))
    with pytest.raises(QuantizationError, match="groups"):
        integer_network(grouped)
