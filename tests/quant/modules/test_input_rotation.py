"""Rotated inputs: nothing changes in full precision, nothing is lost on the way to files and integers, and what cannot be is refused."""

import copy
import logging

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.deploy.integer import integer_network
from basicsr.deploy.onnx_export import save_onnx
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.metrics.layer_costs import count_layers
from basicsr.networks.starting import load_weights_of
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import apply_quantization_map, insert_quantizers, named_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.modules.input_rotation import InputRotation, hadamard_matrix, padded_channels
from basicsr.quant.modules.input_scale import InputScale
from basicsr.quant.observe.capture import bypass_quantizers, count_codes
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.options import CalibrationOptions
from tests import tiny
from tests.deploy.networks import IMAGE, SWINIR, calibrated
from tests.quant.networks import TinySwin

RULES = {"linear": CoverageRule("0", "QLinear"), "split": CoverageRule("0", "QSplitLinear", split=("q", "k"))}


def quantized(kind="linear", channels=5, bits=4, **options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(channels, 6))
    full_precision = copy.deepcopy(network)
    made = insert_quantizers(network, [RULES[kind]], bits, bits, rotate_inputs=True, **options)
    for _, quantizer in named_quantizers(network):
        quantizer.set_bounds(-1.5, 1.5)
    return network, full_precision, made


def test_matrices_by_hand():
    assert hadamard_matrix(1).tolist() == [[1]]
    assert hadamard_matrix(4).tolist() == [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    matrix = hadamard_matrix(64)
    assert torch.equal(matrix @ matrix.T, 64 * torch.eye(64, dtype=torch.float64))
    assert [padded_channels(n) for n in (1, 2, 3, 60, 64, 120, 129)] == [1, 2, 4, 64, 64, 128, 256]


def test_a_rotation_by_hand():
    rotation = InputRotation(3)
    x = torch.tensor([[1.0, 2.0, 6.0]])
    assert rotation(x).tolist() == [[4.5, 2.5, -1.5, -3.5]]  # halves of 1 + 2 + 6, 1 - 2 + 6, 1 + 2 - 6, 1 - 2 - 6
    assert torch.equal(rotation.of_weight(x), rotation(x)) and not rotation.state_dict()
    spike = torch.zeros(1, 60)
    spike[0, 7] = 8.0
    assert torch.equal(InputRotation(60)(spike).abs(), torch.ones(1, 64))  # an outlier is spread over all channels


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("channels", [4, 5, 60])
def test_without_quantization_nothing_changes(kind, channels):
    network, full_precision, _ = quantized(kind, channels)
    assert network[0].weight.shape == (6, padded_channels(channels)) and full_precision[0].weight.shape == (6, channels)
    x = torch.randn(2, 7, channels)
    with bypass_quantizers(network):
        torch.testing.assert_close(network(x), full_precision(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", RULES)
def test_quantizers_see_both_rotated(kind):
    network, full_precision, _ = quantized(kind)
    seen = []
    name = "q.act_quantizer" if kind == "split" else "act_quantizer"
    network[0].get_submodule(name).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 7, 5)
    network(x)
    matrix = (hadamard_matrix(8)[:5] / 8**0.5).float()
    torch.testing.assert_close(seen[0], x @ matrix)
    torch.testing.assert_close(network[0].weight, full_precision[0].weight @ matrix)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("twin", [integer_network, eight_bit_network])
def test_integers_and_runtimes_compute_the_same(kind, twin):
    network, _, _ = quantized(kind)
    x = torch.randn(2, 7, 5)
    torch.testing.assert_close(twin(network)(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_network_packs_as_it_computes_and_exact_integers_give_the_same(tmp_path):
    network, made = calibrated(rotate_inputs=True)
    assert all(module.input_rotation == (module.type != "QMatMul") for module in made.modules)
    size = save_packed(network, SWINIR, made, tmp_path / "packed.safetensors")
    packed, _ = load_packed(tmp_path / "packed.safetensors")
    with torch.no_grad():
        assert torch.equal(packed(IMAGE), network(IMAGE))
        torch.testing.assert_close(integer_network(packed)(IMAGE), network(IMAGE), rtol=1e-4, atol=1e-4)
    plain, of_plain = calibrated()
    assert size > save_packed(plain, SWINIR, of_plain, tmp_path / "plain.safetensors")  # columns for the zeros


@pytest.mark.slow
@pytest.mark.parametrize("change", ["rotate_inputs", "input_scales"])
def test_a_graph_computes_what_the_network_does(change, tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    network, _ = calibrated(**{change: True})
    for module in network.modules():
        if isinstance(module, InputScale):
            module.factors.copy_(torch.linspace(0.5, 2, len(module.factors)))
    save_onnx(network, tmp_path / "net.onnx")
    with torch.no_grad():
        expected = eight_bit_network(network)(IMAGE)
        difference = (RuntimeNetwork(tmp_path / "net.onnx", "openvino", threads=1)(IMAGE) - expected).abs()
    assert float(difference.median() / expected.abs().max()) < 1e-5
    assert float((difference < 1e-4 * expected.abs().max()).float().mean()) > 0.9


def test_the_record_says_it_and_is_read_again():
    network, full_precision, made = quantized("split")
    recorded = made.as_dict()
    assert recorded["modules"][0]["input_rotation"] is True and "input_scale" not in recorded["modules"][0]
    replayed = copy.deepcopy(full_precision)
    apply_quantization_map(replayed, QuantizationMap.from_dict(recorded))
    replayed.load_state_dict(network.state_dict())
    x = torch.randn(3, 5)
    assert torch.equal(replayed(x), network(x))
    plain = insert_quantizers(copy.deepcopy(full_precision), [RULES["linear"]], 4, 4).as_dict()
    assert "input_rotation" not in plain["modules"][0]


def test_a_quantizer_for_each_channel_has_one_for_each_rotated_channel():
    network, _, _ = quantized(activation_granularity="per_channel")
    assert network[0].act_quantizer.upper_bound.shape == (8,)
    assert network(torch.randn(2, 5)).shape == (2, 6)


def test_a_calibrated_network_has_at_most_two_to_the_power_of_bits_values_and_learns(tmp_path):
    torch.manual_seed(0)
    network = TinySwin(groups=1, depth=1).eval()
    student = copy.deepcopy(network)
    insert_quantizers(student, "2dquant", 3, 3, rotate_inputs=True)
    crops = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    given = {role: {"type": "DOBI"} for role in ("weights", "activations")}
    options = CalibrationOptions(**given, weight_fit=2, conditioning=0.01, by_gradient=2)
    calibrate_network(student, crops, options)
    with count_codes(student) as codes:
        (student(crops) - network(crops)).square().sum().backward()
    assert max(codes.values()) <= 8
    assert all(bool(quantizer.upper_bound.grad.isfinite()) for _, quantizer in named_quantizers(student))


def test_a_norm_in_front_of_a_rotation_is_not_folded(caplog):
    student = TinySwin(groups=1, depth=1).eval()
    insert_quantizers(student, "2dquant", 4, 4, rotate_inputs=True)
    options = CalibrationOptions(weights={"type": "MinMax"}, activations={"type": "MinMax"}, fold_norms=1)
    with caplog.at_level(logging.WARNING):
        calibrate_network(student, torch.rand(1, 3, 8, 8), options)
    assert "norm1' is not folded into the layers behind it" in caplog.text and "rotates its input" in caplog.text


def test_the_rotation_costs_a_product_of_matrices():
    costs = {}
    for rotate in (True, False):
        network = build_network({"type": "SwinIR", "upscale": 2, **tiny.NETWORK}).eval()
        insert_quantizers(network, "2dquant", 4, 4, rotate_inputs=rotate)
        for _, quantizer in named_quantizers(network):
            quantizer.mark_calibrated()
        costs[rotate] = {cost.name: cost for cost in count_layers(network, (16, 16))[0]}
    layer = "layers.0.residual_group.blocks.0.mlp.fc1"
    rotation, tokens = costs[True][f"{layer}.input_rotation"], 16 * 16
    assert (rotation.macs, rotation.weights, rotation.bit_product, rotation.quantized) == (
        12 * 16 * tokens,
        0,
        1024,
        False,
    )
    assert (costs[True][layer].macs, costs[False][layer].macs) == (16 * 24 * tokens, 12 * 24 * tokens)
    added = costs[True].keys() - costs[False].keys()
    assert added == {
        f"{name}.input_rotation" for name, cost in costs[False].items() if cost.quantized and cost.kind == "linear"
    }


def test_what_cannot_be_rotated_is_refused():
    with pytest.raises(QuantizationError, match="are both true, but a layer either rotates its input or divides"):
        quantized(input_scales=True)
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(QuantizationError, match="has no linear layer whose input is quantized. Set it to false"):
        insert_quantizers(convolutions, [CoverageRule("0", "QConv2d")], 4, 4, rotate_inputs=True)
    with pytest.raises(QuantizationError, match="has no linear layer whose input is quantized"):
        quantized(exclude=["*.act_quantizer"])
    insert_quantizers(convolutions, [CoverageRule("0", "QConv2d")], 4, 4)
    with pytest.raises(QuantizationError, match="A QConv2d cannot rotate its input"):
        convolutions[0].add_input_rotation()


def test_a_network_with_a_rotation_starts_from_none_without():
    with_rotation, full_precision, _ = quantized()
    without = copy.deepcopy(full_precision)
    insert_quantizers(without, [RULES["linear"]], 4, 4)
    with pytest.raises(
        QuantizationError, match="In this run the layer '0' rotates .* the 'quantization:rotate_inputs' of the network"
    ):
        load_weights_of(with_rotation, without)
    with pytest.raises(
        QuantizationError,
        match="it starts from the layer '0' rotates .* the 'quantization:rotate_inputs' of the network",
    ):
        load_weights_of(without, with_rotation)
