"""Exact percentiles of streamed data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.percentile_calibrator import PercentileCalibrator
from basicsr.quant.search.order_statistics import OrderStatistics
from basicsr.quant.spec import QuantizationError, QuantSpec
from tests.quant.calibrators import oracle

SPEC = QuantSpec(4)


def float64_bounds(tensor: torch.Tensor, lower: float, upper: float, spec: QuantSpec = SPEC) -> np.ndarray:
    calibrator = PercentileCalibrator(spec, lower=lower, upper=upper)
    calibrate_tensor(calibrator, tensor)
    found = calibrator._find_bounds()
    return torch.stack([found.lower, found.upper], dim=1).numpy()


@pytest.mark.parametrize(
    ("key", "lower", "upper"), [("percentile_1_99", 1.0, 99.0), ("percentile_0p1_99p9", 0.1, 99.9)]
)
def test_parity(reference, key, lower, upper):
    tensors, expected = np.load(reference / "dobi.npz"), np.load(reference / "bounds.npz")[key]
    for name, bounds in zip(tensors["names"], expected, strict=True):
        values = tensors[f"x_{name}"]
        found = float64_bounds(torch.from_numpy(values), lower, upper)[0]
        np.testing.assert_allclose(found, bounds, rtol=0, atol=1e-12 * np.ptp(values.astype(np.float64)))


@pytest.mark.parametrize("kind", oracle.tensors(64))
@pytest.mark.parametrize(("lower", "upper"), [(0.0, 100.0), (25.0, 75.0), (0.37, 99.99)])
def test_equals_numpy(kind, lower, upper):
    tensor = oracle.tensors(640)[kind]
    values = tensor.double().numpy()
    expected = np.percentile(values, [lower, upper])
    if expected[0] == expected[1]:
        expected = [values.min(), values.max()]
    np.testing.assert_allclose(float64_bounds(tensor, lower, upper)[0], expected, rtol=1e-12, atol=0)


def test_per_channel_equals_numpy():
    tensor = torch.randn(3, 500, 4) * torch.tensor([1e-20, 1.0, 1e10]).view(3, 1, 1)
    spec = QuantSpec(4, granularity="per_channel", channel_axis=0)
    expected = np.percentile(tensor.double().flatten(1).numpy(), [2.0, 97.0], axis=1).T
    np.testing.assert_allclose(float64_bounds(tensor, 2.0, 97.0, spec), expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    digit_bits=st.sampled_from([8, 16]),
    data=st.data(),
)
def test_order_statistics_of_any_floats(values, digit_bits, data):
    tensor = torch.tensor(values, dtype=torch.float32)
    ranks = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=5))
    statistics = OrderStatistics(digit_bits)
    cut = data.draw(st.integers(0, len(values)))
    while True:
        for batch in (tensor[cut:], tensor[:cut]):
            statistics.add(batch)
        if not statistics.narrow(ranks):
            break
    assert statistics.values() == tensor.sort().values[ranks].tolist()


def test_minimum_and_maximum_where_percentiles_coincide():
    tensor = torch.zeros(1000)
    tensor[:3] = torch.tensor([0.5, 2.0, -1.0])
    bounds = calibrate_tensor(PercentileCalibrator(SPEC), tensor)
    assert (bounds.lower_bound, bounds.upper_bound, bounds.search) == (-1, 2, "minmax")
    assert not bounds.constant
    assert calibrate_tensor(PercentileCalibrator(SPEC), torch.randn(100)).search is None


@pytest.mark.parametrize(
    ("lower", "upper"), [(-1.0, 99.0), (1.0, 100.5), (50.0, 50.0), (99.0, 1.0), (float("nan"), 99.0)]
)
def test_refused_percentiles(lower, upper):
    with pytest.raises(QuantizationError, match="0 <= lower < upper <= 100"):
        PercentileCalibrator(SPEC, lower=lower, upper=upper)


def test_the_percentile_of_magnitudes_gives_symmetric_bounds():
    tensor = torch.randn(3, 400) - 0.3
    calibrator = PercentileCalibrator(SPEC, upper=97.0, magnitude=True)
    bounds = calibrate_tensor(calibrator, tensor)
    assert float(bounds.upper_bound) == pytest.approx(np.percentile(tensor.abs().numpy(), 97.0), rel=1e-6)
    assert torch.equal(bounds.lower_bound, -bounds.upper_bound)
    mostly_zero = torch.zeros(500)
    mostly_zero[7] = -2.0
    bounds = calibrate_tensor(PercentileCalibrator(SPEC, magnitude=True), mostly_zero)
    assert bounds.search == "minmax" and [float(bounds.lower_bound), float(bounds.upper_bound)] == [-2.0, 2.0]
