"""Bounds by the output of the module that holds the quantizer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.modules.linear_qmodule import QLinear
from basicsr.quant.modules.matmul_qmodule import QMatMul
from basicsr.quant.observe.module_calls import ModuleCall, call_module
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.training.calibration import output_search
from basicsr.training.calibration.output_search import ArgumentSample, search_by_output
from tests.quant.networks import MatMul


def product(bits, symmetric=False):
    quantizers = {
        name: AffineQuantizer(QuantSpec(bits, symmetric=symmetric)) for name in ("a_quantizer", "b_quantizer")
    }
    return QMatMul(MatMul(), quantizers)


def softmax_maps(generator, sharpness=3.0):
    logits = sharpness * torch.randn(6, 2, 16, 16, generator=generator)
    return logits.softmax(-1), 1 + torch.randn(6, 2, 16, 5, generator=generator)


def output_error(module, slot, arguments):
    for name in ("a_quantizer", "b_quantizer"):
        module.get_submodule(name).bypass = name != slot
    error = (call_module(module, arguments) - arguments[0] @ arguments[1]).square().mean()
    for name in ("a_quantizer", "b_quantizer"):
        module.get_submodule(name).bypass = False
    return float(error.detach())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.integers(2, 4), symmetric=st.booleans())
def test_the_error_it_states_is_that_of_the_bounds_it_sets_and_never_larger(seed, bits, symmetric):
    a, v = softmax_maps(torch.Generator().manual_seed(seed))
    module, arguments = product(bits, symmetric), {0: a, 1: v}
    module.b_quantizer.set_bounds(float(v.min()), float(v.max()))
    module.a_quantizer.set_bounds(0.0, float(a.max()))
    before = output_error(module, "a_quantizer", arguments)
    result = search_by_output(module, "a_quantizer", arguments)
    assert result.error_before == pytest.approx(before, rel=1e-5)
    assert result.error == pytest.approx(output_error(module, "a_quantizer", arguments), rel=1e-5)
    assert result.error <= result.error_before
    lower, upper = module.a_quantizer.bounds()
    assert torch.equal(lower, result.lower_bound) and torch.equal(upper, result.upper_bound)
    assert not symmetric or torch.equal(lower, -upper)
    squared = (module.a_quantizer(a) - a).detach().square().mean()
    assert result.mean_squared_error == pytest.approx(float(squared), rel=1e-5)
    assert not (module.a_quantizer.bypass or module.b_quantizer.bypass)
    assert module.b_quantizer.bounds()[1] == v.max()  # the other one is left alone


@pytest.mark.parametrize("bits", [2, 3])
def test_softmax_maps_gain_more_than_by_their_own_squared_error(bits):
    a, v = softmax_maps(torch.Generator().manual_seed(1))
    module, arguments = product(bits), {0: a, 1: v}
    best = min(torch.linspace(0.02, 1, 99).tolist(), key=lambda u: float((quantized(a, u, bits) - a).square().mean()))
    module.a_quantizer.set_bounds(0.0, best)
    result = search_by_output(module, "a_quantizer", arguments)
    assert result.error < 0.8 * result.error_before


def quantized(a, upper, bits):
    quantizer = AffineQuantizer(QuantSpec(bits))
    quantizer.set_bounds(0.0, upper)
    return quantizer(a).detach()


def test_it_finds_what_an_exhaustive_search_finds():
    a, v = softmax_maps(torch.Generator().manual_seed(2))
    module, arguments = product(3), {0: a, 1: v}
    module.a_quantizer.set_bounds(0.0, float(a.max()))
    found = search_by_output(module, "a_quantizer", arguments).error
    errors = []
    for lower in torch.linspace(-0.02, 0.06, 17).tolist():
        for upper in torch.linspace(0.1, 1, 46).tolist():
            module.a_quantizer.set_bounds(lower, upper)
            errors.append(output_error(module, "a_quantizer", arguments))
    assert found <= 1.1 * min(errors)


def test_the_input_of_a_linear_layer():
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 4)
    module = QLinear(linear, {name: AffineQuantizer(QuantSpec(3)) for name in ("weight_quantizer", "act_quantizer")})
    module.weight_quantizer.set_bounds(-1.0, 1.0)
    module.act_quantizer.set_bounds(-8.0, 8.0)
    x = torch.randn(20, 8)
    result = search_by_output(module, "act_quantizer", {0: x})
    assert result.error < 0.2 * result.error_before
    assert float(result.upper_bound) < 4


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), limit=st.integers(20, 200))
def test_a_sample_is_the_same_however_crops_are_batched(sizes, limit):
    crops, windows = sum(sizes), 3
    a = torch.arange(crops * windows * 4.0).reshape(crops * windows, 2, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_search, "SAMPLE_ELEMENTS", limit)
        whole, parts = ArgumentSample(crops), ArgumentSample(crops)
        whole.add(ModuleCall({0: a, 1: a + 1, "causal": False}, None), crops)
        first = 0
        for size in sizes:
            part = a[first * windows : (first + size) * windows]
            parts.add(ModuleCall({0: part, 1: part + 1, "causal": False}, None), size)
            first += size
    arguments, same = whole.arguments(), parts.arguments()
    assert arguments.keys() == same.keys() and arguments["causal"] is False
    assert all(torch.equal(arguments[key], same[key]) for key in (0, 1))
    assert torch.equal(arguments[1], arguments[0] + 1)
    assert arguments[0].numel() <= max(limit, a[0].numel())


def test_inputs_that_cannot_be_sampled_together_are_refused():
    with pytest.raises(QuantizationError, match=r"axis 0; these have \[2, 3\]"):
        ArgumentSample(1).add(ModuleCall({0: torch.zeros(2, 1), 1: torch.zeros(3, 1)}, None), 1)
