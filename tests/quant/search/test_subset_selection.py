"""The selection of points: statistics, dynamic programming and k-means, against brute force."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.ops.universal_set import universal_set
from basicsr.quant.search import subset_selection
from basicsr.quant.search.normalized_histogram import NormalizedHistogram
from basicsr.quant.search.subset_selection import select_by_kmeans, select_exactly

SMALL = [[1, 0.25, 0], [0.5, 0.125, 0]]
KEEP = ("cluster_error", "quantization_error")


def random_rows(seed, samples=2, channels=3, elements=60):
    """Normal, sparse and skewed values in -1..1; some channels have few different values."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(samples, channels, elements, generator=generator) * 0.4
    kind = torch.randint(4, (channels,), generator=generator)
    rows[:, kind == 1] = rows[:, kind == 1].clamp_min(0)
    rows[:, kind == 2] = rows[:, kind == 2] ** 3 + 0.2
    rows[:, kind == 3] = (rows[:, kind == 3] * 4).round() / 4
    return rows.clamp(-1, 1)


def histogram_of(rows, word_sets):
    histogram = NormalizedHistogram(universal_set(word_sets), rows.shape[1], rows.device)
    for samples in rows.split(1):
        histogram.add(samples)
    return histogram


def errors(rows, points):
    """Sums of squared distances to the nearest point, (C,), by the definition."""
    values = rows.transpose(0, 1).flatten(1).double()
    return (values[..., None] - points[:, None, :]).square().amin(dim=-1).sum(dim=-1)


def kmeans(histogram, num_points, seed=0, restarts=3, pin_zero=False, keep="cluster_error"):
    generator = torch.Generator().manual_seed(seed)
    return select_by_kmeans(histogram, num_points, restarts=restarts, pin_zero=pin_zero, keep=keep, generator=generator)


def everything(histogram):
    return torch.arange(len(histogram.universal))


@pytest.mark.parametrize("word_sets", [2, 3, 4, 5, SMALL])
def test_the_histogram_knows_the_error_of_any_choice(word_sets):
    rows = random_rows(0, samples=3, channels=8)
    histogram = histogram_of(rows, word_sets)
    values = histogram.universal.values
    for _ in range(20):
        chosen = torch.randint(len(values), (8, 4)).sort(dim=1).values  # equal points too
        torch.testing.assert_close(histogram.squared_errors(chosen), errors(rows, values[chosen]), rtol=1e-6, atol=1e-6)


def test_every_midpoint_is_an_edge_and_bins_are_fine():
    for word_sets in (1, 2, 3, 4, 5, SMALL):
        histogram = NormalizedHistogram(universal_set(word_sets), 1, torch.device("cpu"))
        values = histogram.universal.values
        midpoints = (values[:, None] + values) / 2
        positions = (midpoints + 1) * histogram.num_bins / 2
        torch.testing.assert_close(positions, positions.round(), rtol=0, atol=1e-9)
        assert histogram.num_bins >= 4096


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_points=st.integers(2, 4),
    pin_zero=st.booleans(),
    word_sets=st.sampled_from([1, SMALL]),
)
def test_exact_is_the_best_of_all_choices(seed, num_points, pin_zero, word_sets):
    rows = random_rows(seed)
    histogram = histogram_of(rows, word_sets)
    values = histogram.universal.values
    choices = [c for c in combinations(range(len(values)), num_points) if not pin_zero or 0 in values[list(c)]]
    best = torch.stack([errors(rows, values[list(c)].expand(3, -1)) for c in choices]).amin(dim=0)
    chosen = select_exactly(histogram, num_points, everything(histogram), pin_zero=pin_zero)
    torch.testing.assert_close(errors(rows, values[chosen]), best, rtol=1e-7, atol=1e-7)
    assert (chosen.diff(dim=1) > 0).all()
    assert not pin_zero or (values[chosen] == 0).any(dim=1).all()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bits=st.integers(2, 4),
    pin_zero=st.booleans(),
    keep=st.sampled_from(KEEP),
    number=st.integers(2, 4),
)
def test_exact_never_loses_to_kmeans(seed, bits, pin_zero, keep, number):
    histogram = histogram_of(random_rows(seed, channels=6), number)
    exact = select_exactly(histogram, 2**bits, everything(histogram), pin_zero=pin_zero)
    other = kmeans(histogram, 2**bits, seed, pin_zero=pin_zero, keep=keep)
    assert (histogram.squared_errors(exact) <= histogram.squared_errors(other) + 1e-9).all()


def test_no_point_below_zero_is_needed_for_values_that_are_not_negative():
    histogram = histogram_of(random_rows(1, channels=8).abs(), 4)
    numerators = histogram.universal.numerators
    for num_points in (4, 16):
        free = select_exactly(histogram, num_points, everything(histogram))
        positive = select_exactly(histogram, num_points, (numerators >= 0).nonzero().squeeze(1))
        torch.testing.assert_close(histogram.squared_errors(positive), histogram.squared_errors(free))


@pytest.mark.parametrize("size", [1, 2**19])
def test_channels_are_chosen_apart_however_many_go_together(size, monkeypatch):
    monkeypatch.setattr(subset_selection, "_PAIRS_AT_ONCE", size)
    rows = random_rows(2, channels=5)
    together = histogram_of(rows, 3)
    exact = select_exactly(together, 8, everything(together))
    for channel in range(5):
        alone = histogram_of(rows[:, channel : channel + 1], 3)
        assert torch.equal(select_exactly(alone, 8, everything(alone))[0], exact[channel])


def test_kmeans_finds_clusters_that_lie_apart():
    middles = torch.tensor([-0.75, -0.25, 0.125, 0.625])
    rows = (middles.repeat(50) + 0.01 * torch.randn(200)).view(1, 1, -1)
    histogram = histogram_of(rows, 4)
    chosen = kmeans(histogram, 4, restarts=20)
    torch.testing.assert_close(histogram.universal.values[chosen[0]].float(), middles, rtol=0, atol=0.01)


def test_kmeans_is_a_fixed_point_of_lloyd_in_its_cluster_means():
    rows = random_rows(4, channels=4, elements=2000)
    histogram = histogram_of(rows, 5)
    points = histogram.universal.values[kmeans(histogram, 8, restarts=1)]
    values = rows.transpose(0, 1).flatten(1).double()
    nearest = (values[..., None] - points[:, None, :]).abs().argmin(dim=-1)
    for channel in range(4):
        for cluster in nearest[channel].unique():
            mean = values[channel][nearest[channel] == cluster].mean()
            assert abs(mean - points[channel, cluster]) < 0.02  # the steps of the set, and Lloyd's tolerance


def test_a_pinned_centre_stays_at_zero():
    rows = random_rows(5, channels=6) * 0.3 + 0.6
    histogram = histogram_of(rows.clamp(-1, 1), 4)
    values = histogram.universal.values
    assert (values[kmeans(histogram, 4, pin_zero=True)] == 0).any(dim=1).all()
    assert not (values[kmeans(histogram, 4)] == 0).any()


def test_more_restarts_and_their_criterion_help():
    histogram = histogram_of(random_rows(6, channels=24, elements=500), 4)
    one = histogram.squared_errors(kmeans(histogram, 16, restarts=1, keep="quantization_error"))
    many = histogram.squared_errors(kmeans(histogram, 16, restarts=10, keep="quantization_error"))
    by_clusters = histogram.squared_errors(kmeans(histogram, 16, restarts=10, keep="cluster_error"))
    assert many.sum() < one.sum()
    assert (many <= by_clusters + 1e-9).all()
    assert torch.equal(kmeans(histogram, 16, seed=3), kmeans(histogram, 16, seed=3))


def test_kmeans_of_one_value_in_all_elements():
    for value in (0.0, 0.3, 1.0, -1.0):
        histogram = histogram_of(torch.full((1, 1, 50), value), 4)
        chosen = kmeans(histogram, 4)
        assert (histogram.universal.values[chosen] - value).abs().min() < 0.01
