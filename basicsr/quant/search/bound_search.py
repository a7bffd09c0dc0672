"""The best of the candidate bounds for one tensor or channel, exactly, in one or two passes over the data."""

from dataclasses import dataclass

import torch
from torch import Tensor

from basicsr.quant.search.candidate_errors import CandidateErrors, ExactExcess
from basicsr.quant.search.candidates import OneSidedStep, Search, bulk_side, shrinkages
from basicsr.quant.search.histogram import AlignedHistogram

_REPORTED_PRECISION = 1e-4  # of the error of the winner; its bounds are exact in any case


@dataclass(frozen=True)
class SearchOptions:
    """What to search: see `DOBICalibrator` for the last three, `AlignedHistogram` for `max_bins`."""

    max_code: int
    symmetric_bounds: bool
    max_bins: int
    search: Search
    num_candidates: int
    one_sided_step: OneSidedStep


@dataclass(frozen=True)
class SearchResult:
    """The best bounds, the sum of squared errors with them, and the name of the search that found them."""

    lower: float
    upper: float
    squared_error: float
    name: str


class BoundSearch:
    """The search for one pair of bounds.

    The first pass makes a histogram. It gives limits for the error of every candidate; only those whose lower limit
    does not exceed the smallest upper limit can be best. If several are left, or one whose error is not known to
    0.01 percent, a second pass finds their errors exactly. The first candidate with the smallest error wins, as in an exhaustive search; errors that differ by less
    than rounding can cause count as equal, so that the outcome does not depend on the order of the data.
    """

    def __init__(self, options: SearchOptions, device: torch.device) -> None:
        self._options = options
        self._histogram = AlignedHistogram(options.max_bins, device)
        self._shares = torch.empty(0)  # (candidates, 2), of those that can still be best
        self._refinement: ExactExcess | None = None
        self._name = ""
        self.result: SearchResult | None = None

    def add(self, values: Tensor, lowest: float, highest: float) -> None:
        """Look at float32 values, one axis, all of them from `lowest` to `highest`."""
        if self._refinement is not None:
            self._refinement.add(values)
        elif self.result is None:
            self._histogram.cover(lowest, highest)
            self._histogram.add(values)

    def narrow(self) -> bool:
        """Close a pass; return True if this search needs another one, else `result` is there."""
        if self.result is None:
            if self._refinement is None:
                self._narrow_by_histogram()
            else:
                self._choose_exactly(self._refinement)
        return self.result is None

    def _narrow_by_histogram(self) -> None:
        options = self._options
        search = "symmetric" if options.symmetric_bounds else options.search
        side = bulk_side(self._histogram)
        self._shares, self._name = shrinkages(search, side, options.num_candidates, options.one_sided_step)
        errors = CandidateErrors(self._histogram, options.max_code)
        lower, upper = self._bounds_in_bins()
        low, high = errors.limits(lower, upper)
        rounding = errors.rounding(lower)
        possible = (low <= high.min() + rounding).nonzero().squeeze(1)
        self._shares, low, high = self._shares[possible], low[possible], high[possible]
        tolerance = rounding if len(possible) > 1 else max(rounding, _REPORTED_PRECISION * float(high))
        if float((high - low).max()) <= tolerance:
            self._choose((low + high) / 2, rounding)
        else:
            lower, upper = self._bounds_in_bins()
            self._refinement = ExactExcess(errors.thresholds(lower, upper), self._histogram)

    def _choose_exactly(self, refinement: ExactExcess) -> None:
        errors = CandidateErrors(self._histogram, self._options.max_code)
        lower, upper = self._bounds_in_bins()
        self._choose(errors.errors(lower, upper, refinement.total()), errors.rounding(lower))
        self._refinement = None

    def _choose(self, errors: Tensor, rounding: float) -> None:
        winner = int((errors <= errors.min() + rounding).nonzero()[0])
        lowest, highest = self._range()
        lower_share, upper_share = self._shares[winner].tolist()
        self.result = SearchResult(
            lower=lowest + lower_share * (highest - lowest),
            upper=highest - upper_share * (highest - lowest),
            squared_error=max(0.0, float(errors[winner])) * self._histogram.width**2,
            name=self._name,
        )

    def _bounds_in_bins(self) -> tuple[Tensor, Tensor]:
        lowest, highest = (self._histogram.position(value) for value in self._range())
        return (
            lowest + self._shares[:, 0] * (highest - lowest),
            highest - self._shares[:, 1] * (highest - lowest),
        )

    def _range(self) -> tuple[float, float]:
        lowest, highest = self._histogram.lowest, self._histogram.highest
        if self._options.symmetric_bounds:
            largest = max(-lowest, highest)
            return -largest, largest
        return lowest, highest
