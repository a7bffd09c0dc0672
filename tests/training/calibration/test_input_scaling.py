"""Factors of input channels, chosen by the error of the layer's output."""

import copy

import pytest
import torch
from torch import nn

from basicsr.networks.starting import load_weights_of
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.input_scaling import EXPONENTS, scale_inputs
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.options import CalibrationOptions
from basicsr.utils.registry import CALIBRATOR_REGISTRY

OPTIONS = CalibrationOptions(weights={"type": "DOBI"}, activations={"type": "DOBI", "search": "auto"})


class Uneven(nn.Module):
    """A convolution whose input channels differ two hundredfold in size, and whose weights make all of them matter alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("sizes", torch.tensor([0.1, 1.0, 20.0]).view(3, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.div_(self.sizes)

    def forward(self, x):
        return self.conv(x * self.sizes)


def quantized(network, scales):
    result = copy.deepcopy(network)
    insert_quantizers(
        result, [CoverageRule("conv", "QConv2d")], 4, 4, weight_granularity="per_channel", input_scales=scales
    )
    return result.requires_grad_(False)


def test_uneven_channels_are_evened_out_and_the_output_is_far_nearer():
    network, crops = Uneven(), torch.rand(4, 3, 24, 24)
    errors = {}
    for scales in (False, True):
        student = quantized(network, scales)
        calibrate_network(student, crops, OPTIONS)
        with torch.no_grad():
            errors[scales] = float((student(crops) - network(crops)).square().mean())
    factors = student.conv.input_scale.factors
    assert factors[2] / factors[0] > 50 and factors.log().mean().abs() < 1e-5
    assert errors[True] < errors[False] / 10
    with bypass_quantizers(student), torch.no_grad():
        torch.testing.assert_close(student(crops), network(crops), rtol=1e-4, atol=1e-5)


def test_a_second_calibration_gives_the_same_network():
    network, crops = Uneven(), torch.rand(4, 3, 24, 24)
    student = quantized(network, True)
    calibrate_network(student, crops, OPTIONS)
    first = {key: value.clone() for key, value in student.state_dict().items()}
    calibrate_network(student, crops, OPTIONS)
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, first[key], rtol=1e-5, atol=1e-6, msg=key)


def test_even_channels_keep_their_scale():
    network, crops = nn.Sequential(nn.Conv2d(3, 8, 3)), torch.rand(4, 3, 24, 24)
    crops[:, :, 0, 0] = 1  # the same range for all
    student = copy.deepcopy(network)
    insert_quantizers(student, [CoverageRule("0", "QConv2d")], 4, 4, input_scales=True)
    student.requires_grad_(False)
    assert scale_inputs(student, crops, OPTIONS)["0"] in EXPONENTS
    torch.testing.assert_close(student[0].input_scale.factors, torch.ones(3))


def test_a_constant_input_is_left_to_the_calibration_to_tell():
    student = quantized(Uneven(), True)
    assert scale_inputs(student, torch.zeros(2, 3, 8, 8), OPTIONS) == {"conv": 0.0}


def test_a_network_with_scales_starts_from_none_without():
    with_scales, without = quantized(Uneven(), True), quantized(Uneven(), False)
    with pytest.raises(
        QuantizationError, match="In this run the layer 'conv' scales .* the 'quantization:input_scales' of the network"
    ):
        load_weights_of(with_scales, without)
    with pytest.raises(
        QuantizationError, match="In the network that it starts from .* the 'quantization:input_scales' of the network"
    ):
        load_weights_of(without, with_scales)


def test_factors_are_chosen_with_the_calibrator_that_a_quantizer_brings(monkeypatch):
    asked = []
    build = CALIBRATOR_REGISTRY.build
    monkeypatch.setattr(
        CALIBRATOR_REGISTRY, "build", lambda o, *rest, **more: asked.append(o["type"]) or build(o, *rest, **more)
    )
    student = copy.deepcopy(Uneven())
    rules = [CoverageRule("conv", "QConv2d")]
    insert_quantizers(student, rules, 4, 4, input_scales=True, activation_quantizer={"type": "LogSqrt2"})
    scale_inputs(student.requires_grad_(False), torch.rand(2, 3, 8, 8), OPTIONS)
    assert set(asked) == {"LogScale", "DOBI"} and asked.count("LogScale") == len(EXPONENTS)
