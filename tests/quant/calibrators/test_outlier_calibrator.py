"""The calibrator Outlier: moving averages and percentile by hand."""

import pytest
import torch

from basicsr.quant.calibration import OutlierBounds
from basicsr.quant.calibrators.outlier_calibrator import OutlierCalibrator
from basicsr.quant.quantizers.piecewise_quantizer import PiecewiseQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


def run(calibrator, batches):
    passes = 0
    while True:
        passes += 1
        for batch in batches:
            calibrator.update(batch)
        if not calibrator.end_pass():
            assert passes == 2  # the second one refines the percentile alone
            return calibrator.finish()


def test_averages_and_percentile_by_hand():
    batches = [torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([-3.0, 10.0]), torch.tensor([-2.0, 4.0])]
    found = run(OutlierCalibrator(QuantSpec(4), percentile=50.0), batches)
    assert isinstance(found, OutlierBounds) and not found.constant
    assert float(found.lower_bound) == pytest.approx(0.9 * (0.9 * -1 + 0.1 * -3) + 0.1 * -2)
    assert float(found.upper_bound) == pytest.approx(0.9 * (0.9 * 2 + 0.1 * 10) + 0.1 * 4)
    assert float(found.breakpoint) == 2.0  # of 0.5 1 2 2 3 4 10


def test_without_memory_the_last_batch_counts_and_the_percentile_is_exact():
    x = torch.randn(7, 900, generator=torch.Generator().manual_seed(1))
    found = run(OutlierCalibrator(QuantSpec(4), decay=0.0), x)
    assert (found.lower_bound, found.upper_bound) == (x[-1].min(), x[-1].max())
    torch.testing.assert_close(found.breakpoint, x.abs().flatten().quantile(0.99))


@pytest.mark.parametrize("value", [0.0, 1.5, -2.0])
def test_constant_data(value):
    found = run(OutlierCalibrator(QuantSpec(4)), [torch.full((5,), value)] * 2)
    assert found.constant and float(found.lower_bound) == value < float(found.upper_bound)
    quantizer = PiecewiseQuantizer(QuantSpec(4))
    quantizer.load_calibration(found)
    assert quantizer(torch.full((3,), value)).tolist() == [value] * 3


def test_where_nearly_all_is_zero_nothing_is_an_outlier():
    x = torch.zeros(2, 1000)
    x[:, 0], x[:, 1] = -1.0, 4.0
    found = run(OutlierCalibrator(QuantSpec(3)), x)
    assert float(found.breakpoint) == 4.0
    quantizer = PiecewiseQuantizer(QuantSpec(3))
    quantizer.load_calibration(found)
    assert quantizer.steps.tolist() == [0, 2, 0]


def test_what_it_cannot_do_is_refused():
    with pytest.raises(QuantizationError, match="The decay of Outlier is 1.0"):
        OutlierCalibrator(QuantSpec(4), decay=1.0)
    with pytest.raises(QuantizationError, match="upper 101"):
        OutlierCalibrator(QuantSpec(4), percentile=101.0)
    with pytest.raises(QuantizationError, match="set 'quantization:activation_symmetric' to false"):
        OutlierCalibrator(QuantSpec(4, symmetric=True))
