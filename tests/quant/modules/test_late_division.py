"""Softmax maps that are quantized before the rows are divided by their sum."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.arch_util import MatMul
from basicsr.deploy.integer import integer_network
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.networks.starting import load_weights_of
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import apply_quantization_map, insert_quantizers, named_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.modules.matmul_qmodule import QMatMul, undivided
from basicsr.quant.observe.capture import bypass_quantizers, count_codes
from basicsr.quant.observe.output_gradients import squared_gradients
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.options import CalibrationOptions
from tests import tiny

RULE = CoverageRule("*", "QMatMul")
MAP = torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.15, 0.05]])
VALUES = torch.tensor([[3.0, 1.0], [0.0, 2.0], [1.0, 0.0]])


def product(bits=2, bounds=(0.0, 1.0), values=(-8.0, 8.0), late=("product",)):
    """Return a product of two quantized factors: the map in `bounds`, the values with 8 bits, so that they hardly change."""
    network = nn.ModuleDict({"product": MatMul()})
    insert_quantizers(
        network, [RULE], 8, bits, late_division=late, overrides=[{"match": "product.b_quantizer", "a_bits": 8}]
    )
    layer = network["product"]
    for quantizer, (lower, upper) in ((layer.a_quantizer, bounds), (layer.b_quantizer, values)):
        quantizer.set_bounds(torch.tensor(lower), torch.tensor(upper))
        quantizer.mark_calibrated()
    return layer


def test_rows_are_quantized_with_their_largest_value_as_1_and_divided_by_the_sum_of_what_they_are_then():
    layer = product(values=(0.0, 255 / 32))  # steps of 1/32 hold the values exactly
    # rows before their division: 1, 1/2, 1/2 and 1, 0.1875, 0.0625; of the values 0, 1/3, 2/3, 1 the nearest, halves to the even code
    quantized = torch.tensor([[1, 2 / 3, 2 / 3], [1, 1 / 3, 0]])
    expected = quantized @ VALUES / quantized.sum(1, keepdim=True)
    torch.testing.assert_close(layer(MAP, VALUES), expected)
    torch.testing.assert_close(expected, torch.tensor([[11 / 7, 1.0], [9 / 4, 5 / 4]]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 8), st.floats(0.1, 20), st.floats(-3, 3), st.floats(0.3, 1.5), st.integers(0, 2**31), st.booleans()
)
def test_a_constant_stays_one_whatever_the_grid_and_the_twins_compute_the_same(
    bits, spread, constant, upper, seed, at_zero
):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, 5, 7, generator=generator)
    layer = product(bits, (0.0 if at_zero else 0.02, upper))
    same = layer(logits.softmax(-1), torch.full((2, 7, 3), constant))
    torch.testing.assert_close(same, layer.b_quantizer(torch.tensor(constant)).expand_as(same), rtol=1e-5, atol=1e-5)
    values = torch.randn(2, 7, 3, generator=generator)
    output = layer(logits.softmax(-1), values)
    for twin in (layer.integer_twin(), layer.runtime_form(integer_linear=False)):
        torch.testing.assert_close(twin(logits.softmax(-1), values), output, rtol=1e-4, atol=1e-4)


def test_a_row_that_is_rounded_to_0_gives_0():
    layer = product(2, (0.0, 40.0))
    assert torch.equal(layer(MAP, VALUES), torch.zeros(2, 2))
    assert torch.equal(layer.integer_twin()(MAP, VALUES), torch.zeros(2, 2))


def test_in_full_precision_it_has_the_bits_of_the_product_and_its_gradient():
    layer = product()
    x, v = torch.randn(4, 6, dtype=torch.float64).requires_grad_(), torch.randn(6, 3, dtype=torch.float64)
    with bypass_quantizers(layer):
        with torch.no_grad():
            assert torch.equal(layer(MAP, VALUES), MAP @ VALUES)
        output = layer(x.softmax(-1), v)
        torch.testing.assert_close(output, x.softmax(-1) @ v)
        signs = torch.randn_like(output)
        (found,) = torch.autograd.grad(output, x, signs)
    (expected,) = torch.autograd.grad(x.softmax(-1) @ v, x, signs)
    torch.testing.assert_close(found, expected)


def test_many_bits_have_nearly_the_gradient_of_full_precision():
    layer = product(8)
    x, v = torch.randn(16, 6).requires_grad_(), torch.randn(6, 3)
    signs = torch.randn(16, 3)
    (found,) = torch.autograd.grad(layer(x.softmax(-1), v), x, signs)
    (expected,) = torch.autograd.grad(x.softmax(-1) @ v, x, signs)
    assert float((found - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("late", [[], ["*.attn.av"]])
def test_derivatives_of_the_output_reach_both_factors_of_each_product(late):
    network = build_network({"type": "SwinIR", "upscale": 2, **tiny.NETWORK}).eval()
    insert_quantizers(network, "2dquant", 4, 4, late_division=late)
    names = [name for name, _ in named_quantizers(network) if name.endswith((".a_quantizer", ".b_quantizer"))]
    found = squared_gradients(network, names, torch.rand(1, 3, 16, 16), torch.Generator().manual_seed(0))
    assert len(found) == len(names) > 0
    assert all(float(squared.sum()) > 0 for _, _, squared in found)
    assert bool(late) is all(float(x.amax(-1).min()) == 1.0 for name, x, _ in found if name.endswith("av.a_quantizer"))


@pytest.mark.parametrize("late", [[], ["product"]])
@pytest.mark.parametrize("slot", ["a_quantizer", "b_quantizer"])
@torch.no_grad()
def test_what_a_hook_puts_in_the_place_of_a_factor_is_multiplied_in_full_precision_too(late, slot):
    layer = product(late=late)
    with bypass_quantizers(layer):
        before = layer(MAP, VALUES)
        hook = layer.get_submodule(slot).register_forward_pre_hook(lambda _module, arguments: (arguments[0] + 1,))
        changed = layer(MAP, VALUES)
        hook.remove()
        assert torch.equal(layer(MAP, VALUES), before)
    left = undivided(MAP) if late else MAP
    left, right = (left + 1, VALUES) if slot == "a_quantizer" else (left, VALUES + 1)
    expected = left @ right / left.sum(1, keepdim=True) if late else left @ right
    torch.testing.assert_close(changed, expected)


def calibrated_swin(**options):
    network = build_network({"type": "SwinIR", "upscale": 4, **tiny.NETWORK}).eval()
    full_precision = copy.deepcopy(network)
    made = insert_quantizers(network, "2dquant", 3, 3, **options)
    crops = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    given = {role: {"type": "DOBI"} for role in ("weights", "activations")}
    calibrate_network(network, crops, CalibrationOptions(**given, by_output=["*.attn.av.a_quantizer"], by_gradient=2))
    return network, full_precision, made, crops


def test_a_network_keeps_it_in_its_record_its_packed_file_and_its_twins(tmp_path):
    network, full_precision, made, crops = calibrated_swin(late_division=["*.attn.av"])
    divided = [module.name for module in made.modules if module.late_division]
    assert divided and all(name.endswith("attn.av") for name in divided)
    replayed = copy.deepcopy(full_precision)
    apply_quantization_map(replayed, QuantizationMap.from_dict(made.as_dict()))
    replayed.load_state_dict(network.state_dict())
    with torch.no_grad(), count_codes(network) as codes:
        output = network(crops)
        assert torch.equal(replayed(crops), output)
    assert max(codes.values()) <= 8
    description = {"type": "SwinIR", "upscale": 4, **tiny.NETWORK}
    save_packed(network, description, made, tmp_path / "packed.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(load_packed(tmp_path / "packed.safetensors")[0](crops), output)
        torch.testing.assert_close(integer_network(network)(crops), output, rtol=1e-3, atol=1e-3)
        float_twin = eight_bit_network(network, integer_linear=False)
        torch.testing.assert_close(float_twin(crops), output, rtol=1e-2, atol=1e-2)


def test_a_record_without_looks_as_it_always_did():
    assert all("late_division" not in module for module in calibrated_swin()[2].as_dict()["modules"])


def test_flat_rows_use_the_whole_grid():
    flat = torch.full((1, 64), 1 / 64)
    assert torch.equal(undivided(flat), torch.ones(1, 64))


def test_it_starts_from_no_network_that_divides_first():
    late, full_precision, _, _ = calibrated_swin(late_division=["*.attn.av"])
    early = copy.deepcopy(full_precision)
    insert_quantizers(early, "2dquant", 3, 3)
    with pytest.raises(
        QuantizationError, match="In this run the layer .* before its division, .*quantization:late_div"
    ):
        load_weights_of(late, early)


def test_what_is_no_softmax_map_is_refused():
    layer = product()
    with bypass_quantizers(layer), pytest.raises(QuantizationError, match="no softmax map: its least value is -2"):
        layer(torch.tensor([[-2.0, 3.0]]), torch.ones(2, 1))
    layer = product()
    with bypass_quantizers(layer), pytest.raises(QuantizationError, match="the sum of a row is 2 away from 1"):
        layer(torch.tensor([[1.0, 2.0]]), torch.ones(2, 1))


def test_names_that_cannot_divide_late_are_refused():
    network = nn.ModuleDict({"product": MatMul(), "linear": nn.Linear(4, 4)})
    rules = [RULE, CoverageRule("linear", "QLinear")]
    with pytest.raises(
        QuantizationError, match=r"'quantization:late_division' names '\*\.av', but no layer is called so"
    ):
        insert_quantizers(network, rules, 4, 4, late_division=["*.av"])
    with pytest.raises(QuantizationError, match="'quantization:late_division' names a QLinear, but only a product"):
        insert_quantizers(network, rules, 4, 4, late_division=["linear"])
    assert not list(named_quantizers(network))


def test_weights_alone_need_no_other_recipe():
    network = nn.ModuleDict({"product": MatMul(), "linear": nn.Linear(4, 4)})
    made = insert_quantizers(network, [RULE, CoverageRule("linear", "QLinear")], 4, 32, late_division=["product"])
    assert not any(module.late_division for module in made.modules) and not isinstance(network["product"], QMatMul)
