"""Bounds of activations that are chosen by the output of the whole network."""

import copy

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers, quantized_weights
from basicsr.training.calibration.network_calibration import calibrate_network, check_calibrators
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions


class Gated(nn.Module):
    """Features with rare large values, which a gate ignores: it saturates long before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.first(x))
        rare = torch.exp(12 * self.wide(x))
        return self.last(x * torch.sigmoid(self.gate(rare)))


def options(crops, **more):
    dobi = {"type": "DOBI"}
    return CalibrationOptions(weights=dobi, activations={**dobi, "search": "auto"}, by_gradient=crops, **more)


def quantized(network, bits=4, **more):
    result = copy.deepcopy(network)
    insert_quantizers(result, [CoverageRule("*", "QConv2d")], 8, bits, **more)
    return result.requires_grad_(False).eval()


@pytest.fixture
def crops():
    return torch.rand(12, 3, 20, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("more", "share"),
    [
        ({}, 0.9),
        ({"activation_granularity": "per_channel"}, 0.95),
        ({"activation_symmetric": True}, 1),  # where half of the grid is of no use, less can be won
        ({"input_scales": True}, 0.95),
    ],
    ids=["per_tensor", "per_channel", "symmetric", "scaled"],
)
@pytest.mark.parametrize("bits", [4, 3])
def test_pictures_that_were_not_seen_come_nearer(crops, bits, more, share):
    network, errors = Gated(), []
    for number in (0, 8):
        student = quantized(network, bits, **more)
        calibrate_network(student, crops[:8], options(number))
        with torch.no_grad():
            errors.append(float((student(crops[8:]) - network(crops[8:])).square().mean()))
    assert errors[1] < share * errors[0]


def test_the_report_has_the_bounds_that_the_quantizers_have(crops):
    student = quantized(Gated())
    report = {row.name: row.result for row in calibrate_network(student, crops, options(4))}
    weights = quantized_weights(student)
    for name, quantizer in named_quantizers(student):
        lower, upper = quantizer.affine_bounds()
        torch.testing.assert_close(report[name].lower_bound, lower.detach())
        torch.testing.assert_close(report[name].upper_bound, upper.detach())
        assert (report[name].search == "gradient") == (name not in weights)


def test_the_same_crops_give_the_same_bits(crops):
    students = [quantized(Gated()) for _ in range(2)]
    for student in students:
        torch.manual_seed(int(torch.randint(100, ())))
        calibrate_network(student, crops, options(4))
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_crops_leave_bounds_as_they_are(crops):
    student, plain = quantized(Gated()), quantized(Gated())
    calibrate_network(student, crops, options(0))
    calibrate_network(plain, crops, CalibrationOptions(weights={"type": "DOBI"}, activations={"type": "DOBI"}))
    for (_, one), (_, other) in zip(named_quantizers(student), named_quantizers(plain), strict=True):
        torch.testing.assert_close(one.affine_bounds(), other.affine_bounds())


def test_bounds_by_the_output_of_a_layer_stay(crops):
    student = quantized(Gated())
    report = {row.name: row.result for row in calibrate_network(student, crops, options(4, by_output=["gate.*"]))}
    assert report["gate.act_quantizer"].search == "output"
    assert report["last.act_quantizer"].search == "gradient"
    torch.testing.assert_close(student.gate.act_quantizer.upper_bound, report["gate.act_quantizer"].upper_bound)


def test_a_constant_input_keeps_its_bounds(crops):
    student = quantized(Gated())
    calibrate_network(student, torch.full_like(crops, 0.5), options(4))
    lower, upper = student.first.act_quantizer.affine_bounds()
    assert lower == 0.5
    assert upper > 0.5


def test_weights_alone_need_nothing(crops):
    student = copy.deepcopy(Gated())
    insert_quantizers(student, [CoverageRule("*", "QConv2d")], 4, 32)
    calibrate_network(student.eval(), crops, options(4))


def test_other_quantizers_are_refused_before_the_work():
    student = quantized(Gated(), activation_quantizer={"type": "PAMS"}, activation_symmetric=True)
    pams = CalibrationOptions(weights={"type": "DOBI"}, activations={"type": "MinMax"}, by_gradient=4)
    with pytest.raises(OptionsError, match="'first.act_quantizer' is a PAMSQuantizer. Set it to 0"):
        check_calibrators(student, pams)
