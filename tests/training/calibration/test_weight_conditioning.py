"""Weights of quantized layers conditioned on calibration crops."""

import copy

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, quantized_weights
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.training.calibration.weight_conditioning import condition_weights
from basicsr.utils.options import CalibrationOptions
from tests.training.calibration.test_weight_fitting import RULES, Mixed


def options(strength=0.002):
    return CalibrationOptions(conditioning=strength, batch_size=2)


def quantized(network, rules=RULES, **more):
    result = copy.deepcopy(network)
    insert_quantizers(result, rules, 4, 4, **{"exclude": ["unused"], **more})
    return result.requires_grad_(False).eval()


@pytest.fixture
def crops():
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_weights_of_all_kinds_are_better_conditioned_and_the_network_hardly_changes(crops):
    network = Mixed()
    student = quantized(network)
    before = quantized_weights(quantized(network))
    numbers = condition_weights(student, crops, options())
    parts = ("first", "grouped", "qkv.q", "qkv.k", "last")
    assert set(numbers) == {f"{part}.weight_quantizer" for part in parts}
    assert all(after < old for old, after in numbers.values())
    assert not any(
        torch.equal(before[name], weight) for name, weight in quantized_weights(student).items() if "unused" not in name
    )
    with torch.no_grad(), bypass_quantizers(student):
        change, spread = (student(crops) - network(crops)).square().mean(), network(crops).var((0, 2, 3)).mean()
    assert change < 1e-3 * spread


def test_a_stronger_pull_gives_better_conditions_and_a_larger_change(crops):
    network = Mixed()
    found = []
    for strength in (0.002, 0.05):
        student = quantized(network)
        numbers = condition_weights(student, crops, options(strength))
        with torch.no_grad(), bypass_quantizers(student):
            found.append(
                (float((student(crops) - network(crops)).square().mean()), numbers["first.weight_quantizer"][1])
            )
    assert found[0][0] < found[1][0] and found[0][1] > found[1][1]


def test_the_bias_takes_the_mean_of_what_changes(crops):
    network = nn.Sequential(nn.Conv2d(3, 4, 1))
    with torch.no_grad():
        network[0].weight.mul_(5)
    student = quantized(network, [CoverageRule("*", "QConv2d")], exclude=[])
    condition_weights(student, crops, options(1.0))
    assert not torch.equal(student[0].weight, network[0].weight)
    with torch.no_grad(), bypass_quantizers(student):
        torch.testing.assert_close(student(crops).mean((0, 2, 3)), network(crops).mean((0, 2, 3)))


def test_calibration_does_so_first(crops):
    student = quantized(Mixed())
    calibrate_network(student, crops, options())
    alone = quantized(Mixed())
    condition_weights(alone, crops, options())
    assert torch.equal(student.first.weight, alone.first.weight)
    lower, upper = student.first.weight_quantizer.bounds()
    assert (lower, upper) == (alone.first.weight.min(), alone.first.weight.max())


def test_without_strength_or_with_constant_inputs_weights_stay(crops):
    network = Mixed()
    student = quantized(network)
    assert condition_weights(student, crops, options(0.0)) == {}
    network.first = nn.Conv2d(3, 8, 3)
    student = quantized(network)
    assert "first.weight_quantizer" not in condition_weights(student, torch.full((2, 3, 8, 8), 0.3), options())
    assert torch.equal(student.first.weight, network.first.weight)


def test_inputs_that_are_not_finite_are_told_with_their_layer(crops):
    crops[0, 0, 0, 0] = float("nan")
    with pytest.raises(
        QuantizationError, match="The weight of 'first' cannot be conditioned. Its inputs are not finite"
    ):
        condition_weights(quantized(Mixed()), crops, options())
