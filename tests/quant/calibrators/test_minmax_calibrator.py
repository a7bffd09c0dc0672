"""MinMax bounds."""

import numpy as np
import pytest
import torch

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.minmax_calibrator import MinMaxCalibrator
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


def test_parity(reference):
    tensors, expected = np.load(reference / "dobi.npz"), np.load(reference / "bounds.npz")["minmax"]
    for name, (lower, upper) in zip(tensors["names"], expected, strict=True):
        bounds = calibrate_tensor(MinMaxCalibrator(QuantSpec(4)), torch.from_numpy(tensors[f"x_{name}"]))
        assert (bounds.lower_bound.item(), bounds.upper_bound.item()) == (lower, upper)


def test_weights_per_channel_parity(reference):
    arrays = np.load(reference / "bounds.npz")
    spec = QuantSpec(4, granularity="per_channel", channel_axis=0)
    bounds = calibrate_tensor(MinMaxCalibrator(spec), torch.from_numpy(arrays["dbdc_weight_x"]))
    np.testing.assert_array_equal(
        torch.stack([bounds.lower_bound, bounds.upper_bound], dim=1), arrays["dbdc_weight_bounds"]
    )


def test_range_of_all_batches():
    calibrator = MinMaxCalibrator(QuantSpec(4))
    for batch in (torch.tensor([0.5, 1.0]), torch.tensor([[-2.0]]), torch.tensor([0.0, 0.7, 0.1])):
        calibrator.update(batch)
    assert not calibrator.end_pass()
    bounds = calibrator.finish()
    assert (bounds.lower_bound, bounds.upper_bound) == (-2, 1)
    assert bounds.mean_squared_error is None


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_integer_zero_point_parity(reference, bits):
    arrays = np.load(reference / "dfsq.npz")
    weight = torch.from_numpy(arrays["weight"])
    quantizer = AffineQuantizer(QuantSpec(bits, granularity="per_channel", channel_axis=0), len(weight))
    quantizer.load_calibration(calibrate_tensor(MinMaxCalibrator(quantizer.spec, integer_zero_point=True), weight))
    np.testing.assert_allclose(quantizer(weight).detach(), arrays[f"quant_weight_b{bits}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_zero_is_a_code_and_the_width_stays(granularity):
    axis = 0 if granularity == "per_channel" else None
    spec = QuantSpec(4, granularity=granularity, channel_axis=axis)
    tensor = torch.randn(5, 40) + 0.3
    found, plain = (calibrate_tensor(MinMaxCalibrator(spec, integer_zero_point=i), tensor) for i in (True, False))
    step = (plain.upper_bound - plain.lower_bound) / 15
    torch.testing.assert_close(found.upper_bound - found.lower_bound, 15 * step)
    zero_point = -found.lower_bound / step
    torch.testing.assert_close(zero_point, zero_point.round(), rtol=0, atol=1e-5)
    assert ((zero_point.round() >= 0) & (zero_point.round() <= 15)).all()
    assert ((found.lower_bound - plain.lower_bound).abs() <= step / 2 * (1 + 1e-5)).all()


def test_integer_zero_point_of_constant_and_one_sided_data():
    spec = QuantSpec(4, granularity="per_channel", channel_axis=0)
    tensor = torch.stack([torch.full((8,), 0.7), torch.zeros(8), torch.linspace(1, 2.5, 8)])
    found = calibrate_tensor(MinMaxCalibrator(spec, integer_zero_point=True), tensor)
    assert found.constant
    assert found.lower_bound.tolist()[:2] == [pytest.approx(0.7), 0]
    assert (found.lower_bound[2], found.upper_bound[2]) == (1, 2.5)  # a multiple of the step, 0.1
    assert (found.lower_bound < found.upper_bound).all()


def test_an_integer_zero_point_of_symmetric_bounds_is_refused():
    with pytest.raises(QuantizationError, match="16 values between symmetric bounds do not contain 0"):
        MinMaxCalibrator(QuantSpec(4, symmetric=True), integer_zero_point=True)
