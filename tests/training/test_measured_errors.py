"""Errors of coarse grids of activations, measured one quantizer at a time."""

import pytest
import torch
from torch import Tensor, nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.training.bit_choice import ExpectedErrors, choose_bits, expected_errors
from basicsr.training.measured_errors import MEASURED, measure_errors

ACTIVATION = "mean.act_quantizer"


class Mean(nn.Module):
    """Gives the mean of all channels for each pixel, by a convolution."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.spread = nn.Conv2d(3, channels, 1, bias=False)
        self.mean = nn.Conv2d(channels, 1, 1, bias=False)
        nn.init.constant_(self.spread.weight, 1 / 3)
        nn.init.constant_(self.mean.weight, 1 / channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean(self.spread(x))


def quantized():
    network = Mean().eval()
    insert_quantizers(network, [CoverageRule("mean", "QConv2d")], 8, 4)
    return network


def of_activation(of_bits, bounds):
    return ExpectedErrors("activation", 64, dict(of_bits), dict(bounds))


def test_errors_are_those_of_the_output_of_whole_crops():
    network = quantized()
    crops = torch.full((1, 3, 64, 64), 0.3)  # of the values 0, 1/3, 2/3, 1 and so on the nearest is taken
    found = of_activation({2: 4.0, 3: 2.0, 4: 1.0, 5: 0.25}, dict.fromkeys((2, 3, 4), (0.0, 1.0)))
    measure_errors(network, {ACTIVATION: found}, crops)
    apart = {bits: (0.3 - round(0.3 * (2**bits - 1)) / (2**bits - 1)) ** 2 * 64 * 64 for bits in MEASURED}
    # fewer bits have no smaller error: 3 / 7 is farther than 1 / 3, 4 or 5 / 15 as far
    expected = {4: max(apart[4], 0.25 * apart[4])}
    expected[3] = max(apart[3], expected[4])
    expected[2] = max(apart[2], expected[3])
    assert {bits: found.of_bits[bits] for bits in MEASURED} == pytest.approx(expected, rel=1e-4)
    assert found.of_bits[5] == pytest.approx(0.25 * apart[4], rel=1e-4)
    assert not any(quantizer.bypass for _, quantizer in named_quantizers(network))


def test_errors_that_go_to_one_side_add_up_which_derivatives_do_not_see():
    network = quantized()
    generator = torch.Generator().manual_seed(0)
    crops = torch.rand(2, 1, 32, 32, generator=generator).expand(2, 3, 32, 32).contiguous()
    errors = expected_errors(network, [ACTIVATION], crops)
    foretold = dict(errors[ACTIVATION].of_bits)
    measure_errors(network, errors, crops)
    for bits in MEASURED:  # all 64 channels hold the same value, so that their errors are one and the same
        assert errors[ACTIVATION].of_bits[bits] == pytest.approx(64 * foretold[bits], rel=0.2)
    assert errors[ACTIVATION].of_bits[8] / errors[ACTIVATION].of_bits[4] == pytest.approx(
        foretold[8] / foretold[4], rel=1e-3
    )


def test_quantizers_of_the_same_tensor_are_rounded_together():
    network = nn.Sequential(nn.Linear(32, 64)).eval()
    insert_quantizers(network, [CoverageRule("0", "QSplitLinear", split=("q", "k"))], 8, 4)
    crops = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    errors = expected_errors(network, ["0.q.act_quantizer"], crops)
    found = errors["0.q.act_quantizer"]
    assert found.same_input == ["0.k.act_quantizer"]
    bounds = found.bounds[2]
    measure_errors(network, errors, crops)
    step = (bounds[1] - bounds[0]) / 3
    rounded = ((crops.clamp(*bounds) - bounds[0]) / step).round() * step + bounds[0]
    with torch.no_grad():
        change = nn.functional.linear(rounded - crops, network[0].weight)
    assert found.of_bits[2] == pytest.approx(float(change.square().sum()), rel=1e-4)


def test_weights_and_constant_activations_keep_what_was_expected():
    network = quantized()
    weight = ExpectedErrors("weight", 64, {2: 3.0, 3: 1.0})
    constant = of_activation({2: 0.0, 3: 0.0, 4: 0.0}, {})
    measure_errors(network, {"mean.weight_quantizer": weight, ACTIVATION: constant}, torch.rand(1, 3, 32, 32))
    assert weight.of_bits == {2: 3.0, 3: 1.0} and set(constant.of_bits.values()) == {0.0}
    assert choose_bits({ACTIVATION: constant}, 2.0) == {ACTIVATION: 2}


class Wide(Mean):
    """The same behind a mean over 20 x 20 pixels, which smaller images have not."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.avg_pool2d(x, 20, 1))


def test_a_network_that_takes_no_small_crops_gets_larger_ones():
    network = Wide().eval()
    insert_quantizers(network, [CoverageRule("mean", "QConv2d")], 8, 4)
    found = of_activation({2: 4.0, 3: 2.0, 4: 1.0}, dict.fromkeys((2, 3, 4), (0.0, 1.0)))
    measure_errors(network, {ACTIVATION: found}, torch.full((1, 3, 32, 32), 0.3))
    # of 32 x 32 pixels 13 x 13 are left
    assert found.of_bits[2] == pytest.approx((1 / 3 - 0.3) ** 2 * 13 * 13, rel=1e-3)
    with pytest.raises(RuntimeError):
        measure_errors(network, {ACTIVATION: found}, torch.full((1, 3, 16, 16), 0.3))
