"""The points with the least squared error: by hand, against all groupings, and against the equations that they fulfil."""

import itertools

import pytest
import torch

from basicsr.quant.search.histogram import AlignedHistogram
from basicsr.quant.search.optimal_points import optimal_points


def histogram_of(values, max_bins=768):
    values = torch.as_tensor(values, dtype=torch.float32)
    histogram = AlignedHistogram(max_bins, values.device)
    histogram.cover(values.min().item(), values.max().item())
    histogram.add(values)
    return histogram


def test_groups_by_hand():
    points, error = optimal_points(histogram_of([0.0, 0.0, 1.0, 10.0, 11.0, 100.0]), 3)
    assert points.tolist() == pytest.approx([1 / 3, 10.5, 100.0])
    assert error == pytest.approx((2 / 9 + 4 / 9 + 0.25 + 0.25) / 6)


@pytest.mark.parametrize("seed", range(5))
def test_no_grouping_of_the_sorted_values_is_better(seed):
    values = torch.randn(9, generator=torch.Generator().manual_seed(seed)).sort().values * 4
    points, error = optimal_points(histogram_of(values, 4096), 3)
    best = min(
        sum(((group - group.mean()) ** 2).sum().item() for group in (values[:i], values[i:j], values[j:]))
        for i, j in itertools.combinations(range(1, 9), 2)
    )
    assert error * 9 == pytest.approx(best, rel=1e-4)
    nearest = (values.double()[:, None] - points).square().amin(dim=1).sum().item()
    assert nearest == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("num_points", "hidden"), [(4, 0.01), (16, 0.02), (128, 0.3)])
def test_points_are_the_means_of_what_is_nearest_to_them_and_better_than_equal_steps(num_points, hidden):
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(1)).pow(3).double()
    points, error = optimal_points(histogram_of(values), num_points)
    assert bool((points.diff() > 0).all())
    distances = (values[:, None] - points).square()
    nearest = distances.amin(dim=1).mean().item()
    assert (
        nearest * (1 - 1e-9) <= error <= nearest * (1 + hidden)
    )  # groups are whole bins, which hide the more the more points there are
    equal = torch.linspace(values.min(), values.max(), num_points, dtype=torch.float64)
    assert error < 0.6 * (values[:, None] - equal).square().amin(dim=1).mean().item()


@pytest.mark.parametrize("values", [[1.0, 2.0], [5.0, 5.0, 5.0000005], [0.0, 0.0, 0.0, 1.0]])
def test_fewer_values_than_points_are_points_themselves(values):
    points, error = optimal_points(histogram_of(values), 8)
    assert bool((points.diff() >= 0).all()) and bool(points.isfinite().all())
    assert error == pytest.approx(0.0, abs=1e-12)
    assert all((points - value).abs().min() <= 1e-6 for value in values)


def test_cutting_the_data_into_batches_changes_nothing():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    apart = AlignedHistogram(768, values.device)
    for part in values.split(99):
        apart.cover(part.min().item(), part.max().item())
        apart.add(part)
    together, _ = optimal_points(histogram_of(values), 16)
    torch.testing.assert_close(optimal_points(apart, 16)[0], together, rtol=1e-9, atol=1e-9)
