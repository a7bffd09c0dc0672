"""MinMax bounds."""

import numpy as np
import torch

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.minmax_calibrator import MinMaxCalibrator
from basicsr.quant.spec import QuantSpec


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
