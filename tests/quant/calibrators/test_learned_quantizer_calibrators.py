"""The calibrators MeanMagnitude, EMAMax and DDTB, which start the learned quantizers."""

import json

import pytest
import torch

from basicsr.quant.calibration import Bounds, MeanMagnitude, VaryingBounds
from basicsr.quant.calibrators.ddtb_calibrator import DDTBCalibrator
from basicsr.quant.calibrators.ema_max_calibrator import EMAMaxCalibrator
from basicsr.quant.calibrators.mean_magnitude_calibrator import MeanMagnitudeCalibrator
from basicsr.quant.calibrators.mean_max_calibrator import MeanMaxCalibrator
from basicsr.quant.calibrators.minmax_calibrator import MinMaxCalibrator
from basicsr.quant.calibrators.percentile_calibrator import PercentileCalibrator
from basicsr.quant.spec import QuantizationError, QuantSpec

BATCHES = [torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(3)]
CHANNELS = QuantSpec(4, granularity="per_channel", channel_axis=1)


def run(calibrator, batches=BATCHES):
    while True:
        for batch in batches:
            calibrator.update(batch)
        if not calibrator.end_pass():
            return calibrator.finish()


@pytest.mark.parametrize("spec", [QuantSpec(4), CHANNELS, QuantSpec(4, symmetric=True)])
def test_mean_magnitude(spec):
    result, plain = run(MeanMagnitudeCalibrator(spec)), run(MinMaxCalibrator(spec))
    assert isinstance(result, MeanMagnitude)
    x = torch.cat(BATCHES)
    expected = x.abs().mean() if spec.channel_axis is None else x.abs().mean(dim=(0, 2, 3))
    torch.testing.assert_close(result.mean_magnitude, expected)
    assert torch.equal(result.lower_bound, plain.lower_bound) and torch.equal(result.upper_bound, plain.upper_bound)
    assert json.loads(json.dumps(result.as_dict())).keys() == {*plain.as_dict(), "mean_magnitude"}


def test_the_mean_magnitude_does_not_depend_on_the_batches():
    parts = torch.cat(BATCHES).split(5)
    torch.testing.assert_close(
        run(MeanMagnitudeCalibrator(QuantSpec(4)), parts).mean_magnitude,
        run(MeanMagnitudeCalibrator(QuantSpec(4))).mean_magnitude,
    )


def test_the_moving_average_by_hand():
    means = [batch.abs().amax(dim=(1, 2, 3)).mean() for batch in BATCHES]
    expected = 0.9 * (0.9 * means[0] + 0.1 * means[1]) + 0.1 * means[2]
    result = run(EMAMaxCalibrator(QuantSpec(4, symmetric=True), decay=0.9))
    assert isinstance(result, Bounds)
    torch.testing.assert_close(result.upper_bound, expected)
    assert torch.equal(result.lower_bound, -result.upper_bound)
    torch.testing.assert_close(run(EMAMaxCalibrator(QuantSpec(4), decay=0.0)).upper_bound, means[2])


def test_the_moving_average_per_channel():
    means = [batch.abs().amax(dim=(2, 3)).mean(dim=0) for batch in BATCHES]
    result = run(EMAMaxCalibrator(CHANNELS, decay=0.5))
    torch.testing.assert_close(result.upper_bound, 0.25 * means[0] + 0.25 * means[1] + 0.5 * means[2])
    tokens = [batch.flatten(2).transpose(1, 2) for batch in BATCHES]
    last = EMAMaxCalibrator(QuantSpec(4, granularity="per_channel", channel_axis=-1), decay=0.5)
    torch.testing.assert_close(run(last, tokens).upper_bound, result.upper_bound)


def test_the_moving_average_of_zeros_has_a_width():
    result = run(EMAMaxCalibrator(QuantSpec(4, symmetric=True)), [torch.zeros(2, 3)])
    assert result.constant and result.upper_bound > 0


def test_ddtb_finds_percentiles_and_the_variance_of_the_range():
    result, plain = run(DDTBCalibrator(QuantSpec(4))), run(PercentileCalibrator(QuantSpec(4)))
    assert isinstance(result, VaryingBounds)
    assert torch.equal(result.lower_bound, plain.lower_bound) and torch.equal(result.upper_bound, plain.upper_bound)
    samples = torch.cat(BATCHES).flatten(1)
    expected = samples.amax(dim=1).var(correction=0) + samples.amin(dim=1).var(correction=0)
    assert result.range_variance == pytest.approx(float(expected), rel=1e-5)
    assert json.loads(json.dumps(result.as_dict()))["range_variance"] == result.range_variance


def test_the_variance_of_the_range_does_not_depend_on_the_batches():
    parts = torch.cat(BATCHES).split(1)
    assert run(DDTBCalibrator(QuantSpec(4)), parts).range_variance == pytest.approx(
        run(DDTBCalibrator(QuantSpec(4))).range_variance
    )


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(QuantizationError, match="decay of EMAMax"):
        EMAMaxCalibrator(QuantSpec(4), decay=decay)


def test_a_moving_average_over_the_channels_of_a_weight_is_refused():
    with pytest.raises(QuantizationError, match="Calibrate weights by MinMax"):
        EMAMaxCalibrator(QuantSpec(4, granularity="per_channel", channel_axis=0))


def test_the_mean_of_the_largest_magnitudes_by_hand():
    """3 and 5 of the two batches; in the second one nothing is negative."""
    batches = [torch.tensor([[1.0, -3.0], [0.5, 2.0]]), torch.tensor([[5.0, 4.0], [0.0, 1.0]])]
    result = run(MeanMaxCalibrator(QuantSpec(4)), batches)
    assert (float(result.lower_bound), float(result.upper_bound)) == (-4.0, 4.0)
    result = run(MeanMaxCalibrator(QuantSpec(4)), [batch.abs() for batch in batches])
    assert (float(result.lower_bound), float(result.upper_bound)) == (0.0, 4.0)
    result = run(MeanMaxCalibrator(QuantSpec(4, symmetric=True)), [batch.abs() for batch in batches])
    assert float(result.lower_bound) == -4.0
    per_channel = run(MeanMaxCalibrator(QuantSpec(4, granularity="per_channel", channel_axis=1)), batches)
    assert per_channel.upper_bound.tolist() == [3.0, 3.5] and per_channel.lower_bound.tolist() == [0.0, -3.5]
