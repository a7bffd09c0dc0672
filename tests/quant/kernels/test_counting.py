"""The loops of histograms count what the operators of torch count."""

import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.kernels import counting
from basicsr.quant.ops.universal_set import universal_set
from basicsr.quant.search.histogram import AlignedHistogram
from basicsr.quant.search.normalized_histogram import NormalizedHistogram

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
CPU = torch.device("cpu")
KINDS = {
    "signed": lambda x: x,
    "after a ReLU": lambda x: x.relu(),
    "far from zero": lambda x: x + 1000,
    "softmax": lambda x: x.softmax(0),
    "tiny": lambda x: x * 1e-38,
    "huge": lambda x: x * 1e30,
    "constant": lambda x: torch.full_like(x, -0.25),
}


def aligned(batches, bins):
    histogram = AlignedHistogram(bins, CPU)
    for batch in batches:
        histogram.cover(batch.min().item(), batch.max().item())
        histogram.add(batch)
    return histogram


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 7, 4096, 4097, 70000])
@pytest.mark.parametrize("bins", [16, 2**16])
def test_counts_and_sums_are_the_same_bits(kind, number, bins):
    x = KINDS[kind](torch.randn(2 * number, generator=torch.Generator().manual_seed(number)))
    batches = [x[:number], x[number:], x[::2]]  # the last one has gaps in memory
    by_loops = aligned(batches, bins)
    with counting.counting_loops(False):
        by_operators = aligned(batches, bins)
    assert torch.equal(by_loops.counts, by_operators.counts) and int(by_loops.counts.sum()) == 3 * number
    assert torch.equal(by_loops.fraction_sums, by_operators.fraction_sums)
    torch.testing.assert_close(by_loops.fraction_squares, by_operators.fraction_squares, rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("wrong", [3.0, -1.5, math.inf, -math.inf, math.nan])
def test_a_value_outside_of_all_bins_writes_nowhere(wrong):
    histogram = AlignedHistogram(64, CPU)
    histogram.cover(-1.0, 2.0)
    before = histogram.counts.clone()
    with pytest.raises(ValueError, match="none of the 49 bins"):
        histogram.add(torch.tensor([0.5, wrong]))
    assert torch.equal(histogram.counts, before)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 300)), word_sets=st.integers(1, 5), seed=st.integers(0, 99)
)  # fmt: skip
def test_channels_have_the_same_bits(shape, word_sets, seed):
    rows = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    rows[rows.abs() > 0.9] = rows[rows.abs() > 0.9].sign()  # both ends, of which 1 is in the last bin
    universal = universal_set(word_sets)
    histograms = []
    for loops in (True, False):
        with counting.counting_loops(loops):
            histogram = NormalizedHistogram(universal, shape[1], CPU)
            histogram.add(rows)
            histogram.add(rows.transpose(0, 2).reshape(-1, shape[1], shape[0]))
        histograms.append(histogram)
    by_loops, by_operators = histograms
    assert torch.equal(by_loops.counts, by_operators.counts)
    assert torch.equal(by_loops.sums, by_operators.sums)
    torch.testing.assert_close(by_loops.squares, by_operators.squares, rtol=1e-12, atol=0)


def test_what_loops_do_not_take_is_left_to_the_operators():
    empty = [
        torch.zeros(4, dtype=torch.int64),
        torch.zeros(4, dtype=torch.float64),
        torch.zeros((), dtype=torch.float64),
    ]
    assert not counting.count_aligned(torch.zeros(3, dtype=torch.float64), 0, 0, *empty)
    assert not counting.count_aligned(torch.zeros(3, device="meta"), 0, 0, *empty)
    assert counting.count_aligned(torch.zeros(3), 0, 0, *empty) and empty[0].tolist() == [3, 0, 0, 0]


def test_without_a_compiler_nothing_is_tried_twice(monkeypatch):
    tried = []

    def fails():
        tried.append(1)
        raise counting.NotCompiledError("There is none.")

    monkeypatch.setattr(counting, "load_histograms", fails)
    counting._library.cache_clear()
    histograms = [aligned([torch.tensor([1.0, 2.0])], 16) for _ in range(2)]
    counting._library.cache_clear()
    assert tried == [1] and [int(h.counts.sum()) for h in histograms] == [2, 2]
