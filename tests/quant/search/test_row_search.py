"""Short rows have the bounds that the search of each row finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.calibrators import dobi_calibrator
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.dobi_calibrator import DOBICalibrator
from basicsr.quant.search.bound_search import BoundSearch, SearchOptions
from basicsr.quant.search.candidates import shrinkages
from basicsr.quant.search.row_search import search_rows
from basicsr.quant.spec import QuantSpec
from tests.quant.calibrators import oracle

KINDS = [kind for kind in oracle.tensors(64) if kind not in ("seven", "two_neighbours", "huge_range", "one_outlier")]
ROWS = torch.stack([oracle.tensors(640)[kind].flatten()[:640] for kind in KINDS])


def one_by_one(rows, options):
    results = []
    for row in rows:
        search = BoundSearch(options, row.device)
        lowest, highest = row.min().item(), row.max().item()
        search.add(row, lowest, highest)
        while search.narrow():
            search.add(row, lowest, highest)
        results.append(search.result)
    return results


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("search", "symmetric_bounds"),
    [("auto", False), ("auto", True), ("symmetric", False), ("one_sided", False), ("joint", False)],
)
def test_every_kind_of_data_has_the_bounds_of_its_own_search(search, bits, symmetric_bounds):
    options = SearchOptions(2**bits - 1, symmetric_bounds, 2**12, search, 20, "2K")
    for found, alone in zip(search_rows(ROWS, options), one_by_one(ROWS, options), strict=True):
        assert (found.lower, found.upper, found.name) == (alone.lower, alone.upper, alone.name)
        assert found.squared_error == pytest.approx(alone.squared_error, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=30).filter(lambda v: min(v) < max(v)),
    bits=st.sampled_from([2, 3, 8]),
)  # fmt: skip
def test_the_error_is_the_smallest_of_all_candidates(values, bits):
    rows = torch.tensor([values, sorted(values)], dtype=torch.float32)
    options = SearchOptions(2**bits - 1, False, 2**12, "one_sided", 10, "2K")
    first, second = search_rows(rows, options)
    assert (first.lower, first.upper) == (second.lower, second.upper)
    side = "upper" if first.name == "one_sided_mirrored" else "lower"
    errors = oracle.squared_errors(rows[0], bits, shrinkages("one_sided", side, 10, "2K")[0])
    resolution = 1e-9 * len(values) * np.ptp(rows[0].double().numpy()) ** 2 / 4**bits
    assert first.squared_error == pytest.approx(errors.min(), rel=1e-6, abs=resolution)


@pytest.mark.parametrize(("rows", "bulk"), [([0, 0, 1, 5], "one_sided"), ([0, 4, 5, 5], "one_sided_mirrored"), ([0, 2, 3, 5], "symmetric")])  # fmt: skip
def test_the_side_of_the_bulk(rows, bulk):
    """One half of 4 values, 2, lies in the outermost quarter of the range, which is 1.25."""
    options = SearchOptions(3, False, 2**12, "auto", 10, "2K")
    (found,) = search_rows(torch.tensor([rows], dtype=torch.float32), options)
    assert found.name == bulk


def test_by_hand():
    """With 2 levels the bounds themselves: moved in by 0 or by a quarter of the range, 1, they leave 4 * 1 or 2 * 1 + 2 * 0."""
    options = SearchOptions(1, False, 2**12, "symmetric", 2, "2K")
    (found,) = search_rows(torch.tensor([[0.0, 1, 1, 3, 3, 4]]), options)
    assert (found.lower, found.upper, found.squared_error) == (1, 3, 2)


@pytest.mark.parametrize("spec", [QuantSpec(4, granularity="per_channel", channel_axis=0), QuantSpec(3, symmetric=True, granularity="per_channel", channel_axis=1)])  # fmt: skip
def test_a_calibrator_gives_the_same_for_short_and_for_long_channels(spec, monkeypatch):
    tensor = ROWS.movedim(0, spec.channel_axis)
    short = calibrate_tensor(DOBICalibrator(spec), tensor)
    parts = tensor.split(100, dim=1 - spec.channel_axis)
    streamed = DOBICalibrator(spec)
    for part in parts:
        part = part.clone()
        streamed.update(part)
        part.zero_()  # as a network may that goes on; what is kept is a copy
    assert not streamed.end_pass() and not streamed._searches
    monkeypatch.setattr(dobi_calibrator, "_SHORT", 150)  # reached with the second batch
    long = DOBICalibrator(spec)
    going_on = True
    while going_on:
        for part in parts:
            long.update(part)
        going_on = long.end_pass()
    assert len(long._searches) == len(ROWS)
    for other in (streamed.finish(), long.finish()):
        assert torch.equal(other.lower_bound, short.lower_bound) and torch.equal(other.upper_bound, short.upper_bound)
        assert other.search == short.search
        assert other.mean_squared_error == pytest.approx(short.mean_squared_error, rel=1e-4)


def test_constant_channels_have_their_bounds_as_before():
    rows = torch.cat([ROWS, torch.full((1, 640), 0.25)])
    bounds = calibrate_tensor(DOBICalibrator(QuantSpec(4, granularity="per_channel", channel_axis=0)), rows)
    assert bounds.constant and bounds.lower_bound[-1] == 0.25 and bounds.upper_bound[-1] > 0.25
    assert 0 <= bounds.mean_squared_error < 1e9
