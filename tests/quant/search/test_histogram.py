"""The histogram of batches is the histogram of all data."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.search.histogram import AlignedHistogram
from tests.quant.calibrators import oracle

CPU = torch.device("cpu")


def histogram_of(batches: list[torch.Tensor], max_bins: int) -> AlignedHistogram:
    histogram = AlignedHistogram(max_bins, CPU)
    for batch in batches:
        histogram.cover(batch.min().item(), batch.max().item())
        histogram.add(batch)
    return histogram


def assert_is_of(histogram: AlignedHistogram, values: list[float]) -> None:
    """Compare with a histogram in exact rational arithmetic."""
    width = Fraction(2) ** histogram.exponent
    bins = [math.floor(Fraction(value) / width) - histogram.first_bin for value in values]
    fractions = [Fraction(value) / width - math.floor(Fraction(value) / width) for value in values]
    assert min(bins) == 0
    assert max(bins) == histogram.num_bins - 1
    counts, sums = [0] * histogram.num_bins, [Fraction(0)] * histogram.num_bins
    for index, fraction in zip(bins, fractions, strict=True):
        counts[index] += 1
        sums[index] += fraction
    assert histogram.counts.tolist() == counts
    assert histogram.fraction_sums.tolist() == pytest.approx([float(x) for x in sums], rel=1e-12, abs=1e-14)
    squares = float(sum(fraction**2 for fraction in fractions))
    assert histogram.fraction_squares.item() == pytest.approx(squares, rel=1e-12, abs=1e-14)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(finite, min_size=1, max_size=30), data=st.data())
def test_any_floats_in_any_batches(values, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    edges = [0, *cuts, len(values)]
    tensor = torch.tensor(values, dtype=torch.float32)
    batches = [tensor[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    histogram, whole = histogram_of(batches, 64), histogram_of([tensor], 64)
    assert (histogram.exponent, histogram.first_bin) == (whole.exponent, whole.first_bin)
    assert histogram.num_bins <= 64
    assert_is_of(histogram, values)


@pytest.mark.parametrize("kind", oracle.tensors(64))
def test_growing_range(kind):
    tensor = oracle.tensors(640)[kind].flatten()
    outward = tensor[tensor.abs().argsort()]
    histogram = histogram_of(list(outward.split(7)), 1024)
    whole = histogram_of([tensor], 1024)
    assert torch.equal(histogram.counts, whole.counts)
    assert_is_of(histogram, tensor.tolist())


def test_bins_are_used_well():
    histogram = histogram_of([torch.linspace(-1, 2.3, 5000)], 4096)
    assert 2048 < histogram.num_bins <= 4096
    assert histogram.lowest == -1
    assert histogram.position(-1) == pytest.approx(0, abs=1)


def test_no_bin_is_narrower_than_the_spacing_of_floats():
    histogram = histogram_of([torch.tensor([1.5, 1.5 + 2.0**-23, 1.5 + 2.0**-20])], 2**16)
    assert histogram.exponent == -23
    assert histogram.num_bins == 9
