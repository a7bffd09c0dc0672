"""QuantSR: the shift of the channels and the soft gradient."""

import pytest
import torch

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.mean_magnitude_calibrator import MeanMagnitudeCalibrator
from basicsr.quant.ops.step_functional import staircase_slope
from basicsr.quant.quantizers.base import Channels
from basicsr.quant.quantizers.lsq_quantizer import LSQQuantizer
from basicsr.quant.quantizers.quantsr_quantizer import QuantSRQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

SPEC = QuantSpec(3)
X = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))


def calibrated(quantizer):
    quantizer.load_calibration(calibrate_tensor(MeanMagnitudeCalibrator(SPEC), X))
    return quantizer


def test_before_training_its_values_are_those_of_lsq():
    assert torch.equal(calibrated(QuantSRQuantizer(SPEC, None, Channels(4, 1)))(X), calibrated(LSQQuantizer(SPEC))(X))


def test_the_shift_moves_channels_and_all_share_one_grid():
    quantizer = calibrated(QuantSRQuantizer(SPEC, None, Channels(4, 1)))
    with torch.no_grad():
        quantizer.shift.copy_(torch.tensor([-1.0, 0.0, 0.3, 2.0]))
    shifted = X + quantizer.shift.detach().view(1, 4, 1, 1)
    plain = calibrated(QuantSRQuantizer(SPEC, None, None))
    assert torch.equal(quantizer(X), plain(shifted)) and torch.equal(quantizer.codes(X), plain.codes(shifted))
    assert quantizer(X).unique().numel() <= 8


def test_gradients_by_hand():
    quantizer = calibrated(QuantSRQuantizer(SPEC, None, Channels(4, 1), gradient_scale=False))
    x = X.clone().requires_grad_()
    upstream = torch.randn(X.shape)
    quantizer(x).backward(upstream)
    position = X / quantizer.step.detach()
    inside = (position >= -4) & (position <= 3)
    slope = staircase_slope(position, 1.0) * inside
    codes = position.clamp(-4, 3).round()
    torch.testing.assert_close(x.grad, upstream * slope)
    torch.testing.assert_close(quantizer.shift.grad, (upstream * slope).sum(dim=(0, 2, 3)))
    torch.testing.assert_close(quantizer.step.grad, (upstream * (codes - position * slope)).sum())


def test_a_temperature_near_zero_is_straight_through():
    soft = calibrated(QuantSRQuantizer(SPEC, None, Channels(4, 1), temperature=1e-3))
    plain = calibrated(LSQQuantizer(SPEC))
    for quantizer in (soft, plain):
        quantizer(X).square().sum().backward()
    torch.testing.assert_close(soft.step.grad, plain.step.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "options"), [(None, {}), (Channels(4, 1), {"shift": False})])
def test_where_there_is_nothing_to_shift_there_is_no_shift(channels, options):
    quantizer = calibrated(QuantSRQuantizer(SPEC, None, channels, **options))
    assert [name for name, _ in quantizer.named_parameters()] == ["step"]
    quantizer(X)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_temperatures_that_make_no_staircase_are_refused(temperature):
    with pytest.raises(QuantizationError, match="temperature of QuantSR"):
        QuantSRQuantizer(SPEC, None, None, temperature=temperature)
