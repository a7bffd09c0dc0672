"""Powers of the root of 1/2: values, gradients and the scale by hand, and softmax maps of a network."""

import pytest
import torch

from basicsr.deploy.integer import integer_network
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.quant.calibration import Bounds
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.log_scale_calibrator import LogScaleCalibrator
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.capture import bypass_quantizers, count_codes
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.quantizers.log_quantizer import LogSqrt2Quantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.training.calibration.network_calibration import calibrate_network, check_calibrators
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions
from tests.deploy.networks import IMAGE, SWINIR, calibrated
from tests.quant.networks import TinySwin

MAPS = [{"match": "*.attn.av.a_quantizer", "quantizer": {"type": "LogSqrt2"}}]
MINMAX = {role: {"type": "MinMax"} for role in ("weights", "activations")}


def quantizer_of(bits, scale):
    quantizer = LogSqrt2Quantizer(QuantSpec(bits))
    quantizer.name = "attn.av.a_quantizer"
    quantizer.load_calibration(Bounds(torch.tensor(0.0), torch.tensor(scale)))
    return quantizer


def test_values_by_hand():
    """At 2 bits of the scale 4: 4, 4 / sqrt 2, 2 and 0. Thresholds are 2**(-1/4), 2**(-3/4) and 2**(-5/4) of it."""
    quantizer = quantizer_of(2, 4.0)
    x = torch.tensor([9.0, 4.0, 3.37, 3.36, 2.4, 2.37, 1.69, 1.68, 0.1, 0.0, -1.0])
    assert quantizer.codes(x).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    root = 8**0.5
    torch.testing.assert_close(quantizer(x), torch.tensor([4, 4, 4, root, root, 2, 2, 0, 0, 0, 0]))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_all_values_are_used_and_no_more(bits):
    quantizer = quantizer_of(bits, 1.0)
    x = torch.cat([torch.zeros(1), torch.logspace(-12, 0, 20000)])
    expected = [0.0, *(0.5 ** (code / 2) for code in reversed(range(2**bits - 1)))]
    torch.testing.assert_close(quantizer(x).unique(), torch.tensor(expected))
    assert torch.equal(quantizer.codes(x).unique(), torch.arange(2**bits, dtype=torch.uint8))


def test_gradients_by_hand():
    quantizer = quantizer_of(2, 4.0)
    x = torch.tensor([9.0, 3.0, 0.5, -1.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    assert float(quantizer.scale.grad) == pytest.approx(
        1 + 0.5**0.5
    )  # 4 is the scale, 2.83 its share of sqrt 1/2, the others are 0


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), [1.0, 2.0]])
def test_a_scale_that_cannot_be_used_is_refused(scale):
    with pytest.raises(QuantizationError, match=r"'attn\.av\.a_quantizer' cannot be its scale"):
        quantizer_of(4, scale)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_scale_nearby_has_a_smaller_error(bits):
    x = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)
    found = calibrate_tensor(LogScaleCalibrator(QuantSpec(bits)), x)

    def error(scale):
        with torch.no_grad():
            return float((quantizer_of(bits, scale)(x) - x).square().mean())

    scale = float(found.upper_bound)
    assert float(found.lower_bound) == 0 and error(scale) == pytest.approx(found.mean_squared_error, rel=1e-3)
    candidates = [2.0 ** (i / 16) for i in range(-112, 1)]
    assert min(abs(scale / candidate - 1) for candidate in candidates) < 1e-5
    assert min(map(error, candidates)) >= found.mean_squared_error * (1 - 1e-3)


def test_the_scale_by_hand_does_not_depend_on_the_batches():
    """Values on the grid of the scale 1 have no error there."""
    x = torch.tensor([1.0, 0.5**0.5, 0.5, 0.0])
    found = calibrate_tensor(LogScaleCalibrator(QuantSpec(2)), x)
    assert float(found.upper_bound) == 1.0 and found.mean_squared_error == pytest.approx(0, abs=1e-12)
    parts = LogScaleCalibrator(QuantSpec(2))
    for value in x:
        parts.update(value.reshape(1))
    assert not parts.end_pass() and parts.finish().upper_bound == found.upper_bound


def test_data_with_a_sign_and_channels_are_refused():
    with pytest.raises(QuantizationError, match="reach down to -0.5, but powers of a root have no sign"):
        calibrate_tensor(LogScaleCalibrator(QuantSpec(4)), torch.tensor([-0.5, 1.0]))
    with pytest.raises(QuantizationError, match="'quantization:activation_granularity' to per_tensor"):
        LogScaleCalibrator(QuantSpec(4, granularity="per_channel", channel_axis=1))


def test_softmax_maps_of_a_network_have_their_own_quantizer_and_calibrator():
    torch.manual_seed(0)
    network = TinySwin(groups=1, depth=1).eval()
    made = insert_quantizers(network, "2dquant", 3, 3, quantizers_by_name=MAPS)
    kinds = {name: type(quantizer) for name, quantizer in named_quantizers(network)}
    maps = [name for name, kind in kinds.items() if kind is LogSqrt2Quantizer]
    assert maps and all(name.endswith(".attn.av.a_quantizer") for name in maps)
    assert {kind for name, kind in kinds.items() if name not in maps} == {AffineQuantizer}
    assert all(made.quantizers[name].type == "LogSqrt2" for name in maps)
    options = CalibrationOptions(**MINMAX)
    check_calibrators(network, options)
    crops = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    report = {row.name: row.result for row in calibrate_network(network, crops, options)}
    quantizers = dict(named_quantizers(network))
    for name in maps:
        assert report[name].mean_squared_error > 0 and quantizers[name].scale == report[name].upper_bound
    with torch.no_grad(), count_codes(network) as codes:
        network(crops)
    assert max(codes.values()) <= 8
    with pytest.raises(OptionsError, match="'calibration:by_output'"):
        check_calibrators(network, CalibrationOptions(**MINMAX, by_output=["*.attn.av.a_quantizer"]))


def test_what_does_not_go_by_name_is_refused():
    network = TinySwin(groups=1, depth=1)
    with pytest.raises(QuantizationError, match=r"names '\*\.absent', but no quantizer is called so"):
        insert_quantizers(network, "2dquant", 4, 4, quantizers_by_name=[{**MAPS[0], "match": "*.absent"}])
    with pytest.raises(QuantizationError, match="A LogSqrt2 is for the quantization of activations only"):
        insert_quantizers(network, "2dquant", 4, 4, quantizers_by_name=[{**MAPS[0], "match": "*.weight_quantizer"}])
    with pytest.raises(OptionsError, match="quantization:quantizers_by_name"):
        insert_quantizers(network, "2dquant", 4, 4, quantizers_by_name=[{**MAPS[0], "quantizer": {"type": "Log"}}])


def test_later_rules_win():
    network = TinySwin(groups=1, depth=1)
    rules = [*MAPS, {"match": "*", "quantizer": {"type": "Affine"}}]
    insert_quantizers(network, "2dquant", 4, 4, quantizers_by_name=rules)
    assert {type(quantizer) for _, quantizer in named_quantizers(network)} == {AffineQuantizer}


def test_packed_files_and_graphs_hold_it_and_integers_refuse_it(tmp_path):
    network, made = calibrated(quantizers_by_name=MAPS)
    save_packed(network, SWINIR, made, tmp_path / "packed.safetensors")
    packed, _ = load_packed(tmp_path / "packed.safetensors")
    with torch.no_grad():
        assert torch.equal(packed(IMAGE), network(IMAGE))
    with pytest.raises(QuantizationError, match="is a LogSqrt2Quantizer, which has no fixed uniform grid"):
        integer_network(network)
    with torch.no_grad():
        quantized, in_integers = network(IMAGE), eight_bit_network(network)(IMAGE)
        with bypass_quantizers(network):
            noise = quantized - network(IMAGE)
    assert (in_integers - quantized).square().mean() < 0.05 * noise.square().mean()
