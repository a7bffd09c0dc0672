"""Limits contain the true errors; the second pass finds them."""

import numpy as np
import pytest
import torch

from basicsr.quant.search.candidate_errors import CandidateErrors, ExactExcess
from basicsr.quant.search.candidates import shrinkages
from basicsr.quant.search.histogram import AlignedHistogram
from basicsr.quant.spec import QuantizationError
from tests.quant.calibrators import oracle

COARSE = 64  # so that every threshold cuts a bin with many elements


def setting(tensor: torch.Tensor, bits: int, symmetric_bounds: bool = False):
    """Return histogram, errors object, bounds of 20 symmetric and 20 one-sided candidates in bins, their true errors."""
    values = tensor.flatten()
    histogram = AlignedHistogram(COARSE, torch.device("cpu"))
    histogram.cover(values.min().item(), values.max().item())
    histogram.add(values)
    shares = torch.cat([shrinkages(search, "lower", 20, "K")[0] for search in ("symmetric", "one_sided")])
    lowest, highest = histogram.lowest, histogram.highest
    if symmetric_bounds:
        highest = max(-lowest, highest)
        lowest = -highest
    lowest, highest = histogram.position(lowest), histogram.position(highest)
    lower, upper = lowest + shares[:, 0] * (highest - lowest), highest - shares[:, 1] * (highest - lowest)
    expected = oracle.squared_errors(values, bits, shares, symmetric_bounds) / histogram.width**2
    return histogram, CandidateErrors(histogram, 2**bits - 1), lower, upper, expected


@pytest.mark.parametrize("kind", oracle.tensors(64))
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric_bounds", [False, True])
def test_limits_and_exact_errors(kind, bits, symmetric_bounds):
    tensor = oracle.tensors()[kind]
    histogram, errors, lower, upper, expected = setting(tensor, bits, symmetric_bounds)
    rounding = errors.rounding(lower)
    low, high = errors.limits(lower, upper)
    assert (low.numpy() <= expected + rounding).all()
    assert (high.numpy() >= expected - rounding).all()
    refinement = ExactExcess(errors.thresholds(lower, upper), histogram)
    for batch in tensor.flatten().split(1000):
        refinement.add(batch)
    exact = errors.errors(lower, upper, refinement.total()).numpy()
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=rounding)


def test_limits_of_single_elements_coincide():
    _, errors, lower, upper, expected = setting(torch.tensor([0.0, 0.4, 0.77, 1.9, 3.0]), 4)
    low, high = errors.limits(lower, upper)
    np.testing.assert_allclose(low, expected, rtol=1e-9, atol=errors.rounding(lower))
    np.testing.assert_allclose(high, expected, rtol=1e-9, atol=errors.rounding(lower))


def test_limits_are_reached():
    """In a bin cut in its middle, elements at its edges reach the lower limit, equal elements the upper one."""
    at_edges = torch.tensor([0.0, 63.0] + [31.0, 31.0 + 127 / 128] * 8)
    equal = torch.tensor([0.0, 63.0] + [31.0 + 127 / 256] * 16)
    limits = []
    for tensor in (at_edges, equal):
        _, errors, lower, upper, expected = setting(tensor, 2)
        limits.append((*(limit[0].item() for limit in errors.limits(lower[:1], upper[:1])), expected[0]))
    (edge_low, edge_high, edge_error), (equal_low, equal_high, equal_error) = limits
    assert edge_error - edge_low < 0.02 * (edge_high - edge_low)
    assert equal_error == pytest.approx(equal_high)
    assert equal_high - equal_low > 100


def test_other_data_in_the_second_pass():
    tensor = torch.randn(1000)
    histogram, errors, lower, upper, _ = setting(tensor, 4)
    refinement = ExactExcess(errors.thresholds(lower[3:4], upper[3:4]), histogram)
    refinement.add(tensor.clamp(-0.5, 0.5))
    with pytest.raises(QuantizationError, match="other values than the first"):
        refinement.total()
