"""Weights fitted to quantized inputs, layer by layer."""

import copy

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers, quantized_weights
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import calibrate_network, check_calibrators
from basicsr.training.calibration.weight_fitting import fit_weights
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions

RULES = [
    CoverageRule("qkv", "QSplitLinear", split=("q", "k")),
    CoverageRule("*", "QConv2d"),
    CoverageRule("*", "QLinear"),
]


class Mixed(nn.Module):
    """Convolutions, one of them in groups, linear layers, one of them split, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.qkv, self.last = nn.Linear(8, 16), nn.Linear(16, 3, bias=False)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        return self.last(torch.relu(self.qkv(x.movedim(1, -1)))).movedim(-1, 1)


def options(crops, **more):
    return CalibrationOptions(
        weights={"type": "DOBI"}, activations={"type": "DOBI", "search": "auto"}, weight_fit=crops, **more
    )


def quantized(network, bits=3, **more):
    result = copy.deepcopy(network)
    insert_quantizers(result, RULES, bits, bits, exclude=["unused"], **more)
    return result.requires_grad_(False).eval()


@pytest.fixture
def crops():
    return torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def errors(network, crops, **more):
    """Return the errors on pictures that were not calibrated on, without and with fitted weights."""
    found = []
    for number in (0, 4):
        student = quantized(network, **more)
        calibrate_network(student, crops[:4], options(number))
        with torch.no_grad():
            found.append(float((student(crops[4:]) - network(crops[4:])).square().mean()))
    return found


@pytest.mark.parametrize("more", [{}, {"weight_granularity": "per_channel"}, {"input_scales": True, "bits": 4}])
def test_pictures_that_were_not_seen_come_nearer(crops, more):
    before, after = errors(Mixed(), crops, **more)
    assert after < 0.9 * before


def test_weights_lie_on_their_grids_and_what_was_not_called_stays(crops):
    network = Mixed()
    student = quantized(network, weight_granularity="per_channel")
    report = calibrate_network(student, crops, options(6))
    quantizers = dict(named_quantizers(student))
    for name, weight in quantized_weights(student).items():
        torch.testing.assert_close(quantizers[name](weight), weight, rtol=1e-4, atol=1e-5)
    assert torch.equal(student.unused.weight, network.unused.weight)
    assert not torch.equal(student.first.bias, network.first.bias)
    assert {row.name for row in report} == set(quantizers)


def test_the_output_keeps_its_mean(crops):
    network = Mixed()
    network.last = nn.Linear(16, 3)
    student = quantized(network, bits=2)
    calibrate_network(student, crops, options(6))
    with torch.no_grad():
        torch.testing.assert_close(student(crops).mean((0, 2, 3)), network(crops).mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_errors_of_inputs_make_weights_smaller_unless_the_target_leaves_them_out(crops):
    slopes = []
    for target in (0.0, 0.5, 1.0):
        network = Mixed()
        student = quantized(network, weight_granularity="per_channel")
        calibrate_network(student, crops, options(6, weight_fit_target=target))
        before, after = network.last.weight.detach().flatten(), student.last.weight.flatten()
        slopes.append(float(before @ after / before.square().sum()))
    assert 1.05 > slopes[0] > slopes[1] > slopes[2]


def test_without_errors_of_inputs_in_the_target_fine_weights_stay(crops):
    largest = {}
    for target in (0.0, 1.0):
        network = Mixed()
        student = copy.deepcopy(network)
        insert_quantizers(student, RULES, 8, 2, exclude=["unused"], weight_granularity="per_channel")
        calibrate_network(student.requires_grad_(False).eval(), crops, options(6, weight_fit_target=target))
        before, after = network.last.weight.detach(), student.last.weight
        steps = (before.amax(1) - before.amin(1)) / 255
        largest[target] = float(((after - before).abs().amax(1) / steps).max())
    assert largest[0.0] < 3 < 10 < largest[1.0]


def test_no_crops_leave_weights_as_they_are(crops):
    network = Mixed()
    student = quantized(network)
    calibrate_network(student, crops, options(0))
    assert torch.equal(student.first.weight, network.first.weight)


def test_weights_without_a_grid_of_their_own_are_refused_before_the_work():
    student = quantized(Mixed(), weight_quantizer={"type": "ODMWeight"}, weight_symmetric=True)
    with pytest.raises(
        OptionsError, match="to their grid.*follows from the weight.*than ODMWeightQuantizer for 'first'"
    ):
        check_calibrators(student, options(4))


def test_a_layer_with_a_constant_input_stays_as_it_is():
    network = Mixed()
    network.first = nn.Conv2d(3, 8, 3)
    student = quantized(network)
    calibrate_network(student, torch.full((2, 3, 8, 8), 0.3), options(2))
    assert torch.equal(student.first.weight, network.first.weight)


def test_inputs_that_are_not_finite_are_told_with_their_layer(crops):
    student = quantized(Mixed())
    calibrate_network(student, crops, options(0))
    crops[0, 0, 0, 0] = float("nan")
    with pytest.raises(QuantizationError, match="The weight of 'first' cannot be fitted. Its inputs are not finite"):
        fit_weights(student, crops, options(2))
