"""LSQ: which codes, the first step, and the scale of its gradient."""

import math

import pytest
import torch

from basicsr.quant.calibration import Bounds, MeanMagnitude
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.mean_magnitude_calibrator import MeanMagnitudeCalibrator
from basicsr.quant.quantizers.lsq_quantizer import LSQQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


def calibrated(spec, x, num_channels=None, **options):
    quantizer = LSQQuantizer(spec, num_channels, **options)
    quantizer.load_calibration(calibrate_tensor(MeanMagnitudeCalibrator(spec), x))
    return quantizer


def test_the_data_decide_between_signed_and_unsigned_codes():
    x = torch.randn(1000)
    signed, unsigned = calibrated(QuantSpec(3), x), calibrated(QuantSpec(3), x.relu())
    assert (signed.lowest_code.item(), unsigned.lowest_code.item()) == (-4, 0)
    assert signed.step.item() == pytest.approx(2 * x.abs().mean().item() / math.sqrt(3))
    assert unsigned.step.item() == pytest.approx(2 * x.relu().mean().item() / math.sqrt(7))
    assert signed(4 * x).unique().numel() == unsigned(4 * x).unique().numel() == 8
    assert unsigned(x).min() == 0 and 0 in signed(x)


def test_a_symmetric_specification_is_signed_whatever_the_data():
    assert calibrated(QuantSpec(3, symmetric=True), torch.rand(100)).lowest_code == -4


def test_one_negative_channel_makes_all_signed():
    spec = QuantSpec(4, granularity="per_channel", channel_axis=0)
    x = torch.stack([torch.rand(50), -torch.rand(50)])
    quantizer = calibrated(spec, x, 2)
    assert quantizer.lowest_code == -8
    torch.testing.assert_close(quantizer.step.detach(), 2 * x.abs().mean(dim=1) / math.sqrt(7))


@pytest.mark.parametrize("channels", [None, 4])
def test_the_gradient_scale(channels):
    spec = QuantSpec(4) if channels is None else QuantSpec(4, granularity="per_channel", channel_axis=1)
    x = torch.randn(2, 4, 9)
    gradients = []
    for scale in (True, False):
        quantizer = calibrated(spec, x, channels, gradient_scale=scale)
        quantizer(x).square().sum().backward()
        gradients.append(quantizer.step.grad)
    elements = 2 * 9 * (4 if channels is None else 1)
    torch.testing.assert_close(gradients[0], gradients[1] / math.sqrt(elements * 7))


def test_the_gradient_of_the_step_by_hand():
    quantizer = LSQQuantizer(QuantSpec(2))  # codes -2..1
    one = torch.tensor(1.0)
    quantizer.load_calibration(MeanMagnitude(-one, one, mean_magnitude=one / 4))  # step 2 / 4 / sqrt(1)
    assert quantizer.step.item() == 0.5
    quantizer(torch.tensor([-9.0, -0.8, 0.4, 9.0])).sum().backward()
    assert quantizer.step.grad.item() == pytest.approx((-2 + (-2 + 1.6) + (1 - 0.8) + 1) / math.sqrt(4 * 1))


def test_codes_are_counted_from_the_lowest():
    x = torch.randn(200)
    quantizer = calibrated(QuantSpec(4), x)
    expected = quantizer(x) / quantizer.step + 8
    torch.testing.assert_close(quantizer.codes(x).float(), expected)


def test_data_of_zeros_run():
    quantizer = calibrated(QuantSpec(4), torch.zeros(9))
    assert quantizer(torch.zeros(9)).tolist() == [0.0] * 9


def test_a_mean_that_cannot_be_used_is_refused():
    quantizer, one = LSQQuantizer(QuantSpec(4)), torch.tensor(1.0)
    with pytest.raises(QuantizationError, match="finite and of the shape"):
        quantizer.load_calibration(MeanMagnitude(-one, one, mean_magnitude=one * torch.nan))
    with pytest.raises(QuantizationError, match="finite and of the shape"):
        quantizer.load_calibration(MeanMagnitude(-one, one, mean_magnitude=torch.ones(3)))
    assert not bool(quantizer.calibrated)


def test_bounds_are_reached_by_the_first_step():
    lower, upper = torch.tensor(-0.5), torch.tensor(2.1)
    quantizer = LSQQuantizer(QuantSpec(4))
    quantizer.load_calibration(Bounds(lower, upper))  # codes -8..7
    assert quantizer.step.item() == pytest.approx(0.3)
    quantizer.load_calibration(Bounds(-4 * upper, upper))
    assert quantizer.step.item() == pytest.approx(1.05)
    quantizer.load_calibration(Bounds(torch.zeros(()), upper))  # codes 0..15
    assert (quantizer.lowest_code.item(), quantizer.step.item()) == (0, pytest.approx(0.14))
    quantizer.load_calibration(Bounds(-upper, torch.zeros(())))
    assert quantizer.step.item() == pytest.approx(2.1 / 8)
