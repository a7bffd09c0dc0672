"""The calibrator of points: what it finds, constant data, and what it refuses."""

import pytest
import torch

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.optimal_points_calibrator import OptimalPointsCalibrator
from basicsr.quant.spec import QuantizationError, QuantSpec


def test_points_and_their_error_are_those_of_the_data():
    x = torch.tensor([[-3.0, -3.0, 0.0], [0.0, 2.0, 8.0]])
    found = calibrate_tensor(OptimalPointsCalibrator(QuantSpec(2)), x)
    assert found.points.tolist() == [-3.0, 0.0, 2.0, 8.0] and found.points.dtype == torch.float32
    assert found.mean_squared_error == pytest.approx(0, abs=1e-12) and not found.constant
    assert found.as_dict()["points"] == [-3.0, 0.0, 2.0, 8.0]


def test_batches_add_up():
    x = torch.randn(400, generator=torch.Generator().manual_seed(0))
    calibrator = OptimalPointsCalibrator(QuantSpec(3))
    for part in x.split(70):
        calibrator.update(part)
    assert not calibrator.end_pass()
    whole = calibrate_tensor(OptimalPointsCalibrator(QuantSpec(3)), x)
    torch.testing.assert_close(calibrator.finish().points, whole.points)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6])
def test_constant_data_are_a_point_and_the_others_lie_above(value):
    found = calibrate_tensor(OptimalPointsCalibrator(QuantSpec(4)), torch.full((5,), value))
    assert found.constant and found.points[0] == value
    assert bool((found.points.diff() > 0).all()) and found.points[-1] <= value + max(1.0, abs(value)) * 1e-4


def test_layers_that_keep_8_bits_have_256_points():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    found = calibrate_tensor(OptimalPointsCalibrator(QuantSpec(8)), x)
    assert len(found.points) == 256 and bool((found.points.diff() > 0).all())
    equal = ((x.max() - x.min()) / 255).square().item() / 12
    assert found.mean_squared_error < equal


@pytest.mark.parametrize(
    "spec", [QuantSpec(4, symmetric=True), QuantSpec(4, granularity="per_channel", channel_axis=1)]
)
def test_other_quantizers_are_refused(spec):
    with pytest.raises(QuantizationError, match="OptimalPoints finds points for a whole tensor"):
        OptimalPointsCalibrator(spec)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(QuantizationError, match="1 NaN"):
        OptimalPointsCalibrator(QuantSpec(2)).update(torch.tensor([1.0, float("nan")]))
