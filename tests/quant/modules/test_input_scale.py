"""Factors of the channels of a layer's input, and the weight that takes them back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.deploy.integer import integer_network
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import apply_quantization_map, insert_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.spec import QuantizationError

LAYERS = {
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "linear": lambda: nn.Linear(4, 6),
    "split": lambda: nn.Linear(4, 6),
}
RULES = {
    "conv": CoverageRule("0", "QConv2d"),
    "grouped": CoverageRule("0", "QConv2d"),
    "linear": CoverageRule("0", "QLinear"),
    "split": CoverageRule("0", "QSplitLinear", split=("q", "k")),
}
INPUTS = {name: (2, 4, 5, 5) if name in ("conv", "grouped") else (2, 7, 4) for name in LAYERS}


def quantized(kind, bits=4, **options):
    torch.manual_seed(0)
    network = nn.Sequential(LAYERS[kind]())
    full_precision = copy.deepcopy(network)
    made = insert_quantizers(network, [RULES[kind]], bits, bits, input_scales=True, **options)
    for module in network.modules():
        if hasattr(module, "set_bounds"):
            module.set_bounds(-1.5, 1.5)
    return network, full_precision, made


@pytest.mark.parametrize("kind", LAYERS)
@given(factors=st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_without_quantization_any_factors_change_nothing(kind, factors):
    network, full_precision, _ = quantized(kind)
    network[0].set_input_scale(torch.ones(4) * 3)
    network[0].set_input_scale(torch.tensor(factors))  # the earlier ones are taken back
    x = torch.randn(INPUTS[kind])
    with bypass_quantizers(network):
        torch.testing.assert_close(network(x), full_precision(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_quantizers_see_the_divided_input_and_the_multiplied_weight(kind):
    network, full_precision, _ = quantized(kind)
    layer, factors = network[0], torch.tensor([0.5, 1.0, 2.0, 4.0])
    layer.set_input_scale(factors)
    x = torch.randn(INPUTS[kind])
    seen = []
    name = "q.act_quantizer" if kind == "split" else "act_quantizer"
    layer.get_submodule(name).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network(x)
    shape = (4, 1, 1) if kind in ("conv", "grouped") else (4,)
    torch.testing.assert_close(seen[0], x / factors.view(shape))
    of_weight = factors if kind != "grouped" else torch.stack([factors[:2]] * 3 + [factors[2:]] * 3)
    of_weight = of_weight.view(-1, 4 if kind != "grouped" else 2, *[1] * (layer.weight.dim() - 2))
    torch.testing.assert_close(layer.weight, full_precision[0].weight * of_weight)


@pytest.mark.parametrize("kind", ["conv", "linear", "split"])
@pytest.mark.parametrize("twin", [integer_network, eight_bit_network])
def test_integers_and_runtimes_compute_the_same(kind, twin):
    network, _, _ = quantized(kind)
    network[0].set_input_scale(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    x = torch.randn(INPUTS[kind])
    torch.testing.assert_close(twin(network)(x), network(x), rtol=1e-4, atol=1e-4)


def test_the_record_says_which_inputs_are_scaled_and_is_read_again():
    network, full_precision, made = quantized("conv")
    network[0].set_input_scale(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    recorded = made.as_dict()
    assert recorded["modules"][0]["input_scale"] is True
    replayed = copy.deepcopy(full_precision)
    apply_quantization_map(replayed, QuantizationMap.from_dict(recorded))
    replayed.load_state_dict(network.state_dict())
    x = torch.randn(INPUTS["conv"])
    assert torch.equal(replayed(x), network(x))


def test_a_record_without_scales_looks_as_it_always_did():
    made = insert_quantizers(nn.Sequential(LAYERS["conv"]()), [RULES["conv"]], 4, 4)
    assert "input_scale" not in made.as_dict()["modules"][0]


def test_weights_alone_have_no_scales():
    network, _, made = quantized("conv", exclude=["*.act_quantizer"])
    assert network[0].input_scale is None and not made.modules[0].input_scale


@pytest.mark.parametrize("factors", [[0.0, 1, 1, 1], [-1.0, 1, 1, 1], [float("nan"), 1, 1, 1], [float("inf"), 1, 1, 1]])
def test_factors_that_cannot_be_taken_back_are_refused(factors):
    network, _, _ = quantized("linear")
    before = network[0].weight.clone()
    with pytest.raises(QuantizationError, match="finite and above 0"):
        network[0].set_input_scale(torch.tensor(factors))
    assert torch.equal(network[0].weight, before)
