"""Squared quantization errors of many pairs of bounds at once, from a histogram.

With levels q_k = l + k s, k = 0..N, an element goes to the nearest level, so it passes from q_k to q_(k+1) at the
threshold t_k = l + (k + 1/2) s, which changes its squared error by -2 s (x - t_k). Summed over all elements,

    error(l, s) = sum (x - l)**2 - 2 s sum_k E(t_k),    E(t) = sum max(0, x - t),

where E, the excess above t, does not depend on the candidate: suffix sums give it for every bin edge. Only the bin
that t cuts leaves a doubt. Of n elements with mean fraction m, at the place f in the bin, the excess is at least
n max(0, m - f), as if all lay at their mean, and at most that of elements which all, but for one, lie at the bin's
edges. Both are reached by some elements, so these limits cannot be improved, and they coincide for n = 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from basicsr.quant.search.histogram import AlignedHistogram
from basicsr.quant.spec import QuantizationError

_THRESHOLDS_AT_ONCE = 2**15  # what is computed from them stays in the cache
_LARGEST_FRACTION = 1 - 2.0**-36  # bin + fraction stays below bin + 1 in float64 for all bins below 2**16
_MOVED_SHARE = 1 / 64  # of all elements, that rounding may carry into or out of the cut bins between two passes
_ROUNDING = 2.0**-46  # of the sums of squares that cancel, generously


@dataclass(frozen=True)
class Thresholds:
    """Thresholds t of some candidates, measured in bins.

    Attributes:
        places: float64 (candidates, N), moved to the range of the histogram.
        bins: int64, the bin that holds the threshold; as `places`.
        outer: the excess of the elements in later bins, and of all from `places` down to a t below the range.
        inner_low, inner_high: limits for the excess of the elements in the same bin; as `places`.
    """

    places: Tensor
    bins: Tensor
    outer: Tensor
    inner_low: Tensor
    inner_high: Tensor


class CandidateErrors:
    """Errors of candidates, in squared bin widths, with bounds measured in bins (`AlignedHistogram.position`).

    All tensors here are on the CPU, also if the data are not: what remains of the data is small.

    Args:
        histogram: complete; not copied.
        max_code: N, the number of steps.
    """

    def __init__(self, histogram: AlignedHistogram, max_code: int) -> None:
        counts, fractions = histogram.counts.cpu(), histogram.fraction_sums.cpu()
        index = torch.arange(len(counts))
        self._max_code = max_code
        self._counts = counts.double()
        self._fractions = fractions
        # whole numbers are summed as such: rounding is left to the sums of fractions, which are small beside them
        self._count_above = _sums_of_later(counts).double()
        self._sum_above = _sums_of_later(index * counts).double() + _sums_of_later(fractions)
        self._num_elements = float(counts.sum())
        self._sum = float((index * counts).sum()) + float(fractions.sum())
        self._sum_of_squares = float((index * (index * self._counts + 2 * fractions)).sum())
        self._sum_of_squares += float(histogram.fraction_squares)

    def thresholds(self, lower: Tensor, upper: Tensor) -> Thresholds:
        """Return the thresholds of candidates, float64 (candidates,) each."""
        step = (upper - lower) / self._max_code
        codes = torch.arange(self._max_code, dtype=torch.float64)
        places = lower[:, None] + (codes + 0.5) * step[:, None]  # C -> C,N
        # bounds -u and u of one-sided data have thresholds outside the data
        distance_below = places.clamp(max=0).neg_()
        places = places.clamp_(0, len(self._counts))
        bins = places.to(torch.int64).clamp_(max=len(self._counts) - 1)
        inside = places - bins  # 0 to 1
        count, fraction_sum = self._counts[bins], self._fractions[bins]
        at_upper_edge = fraction_sum.floor()
        inner_low = (fraction_sum - count * inside).clamp_(min=0)
        inner_high = at_upper_edge * (1 - inside) + (fraction_sum - at_upper_edge - inside).clamp_(min=0)
        outer = self._sum_above[bins] - places * self._count_above[bins] + distance_below * self._num_elements
        return Thresholds(places, bins, outer, inner_low, inner_high)

    def errors(self, lower: Tensor, upper: Tensor, excess: Tensor) -> Tensor:
        """Return the sums of squared errors, (candidates,), given for each the sum over k of E(t_k)."""
        step = (upper - lower) / self._max_code
        to_lower_bound = self._sum_of_squares + lower * (lower * self._num_elements - 2 * self._sum)
        return to_lower_bound - 2 * step * excess

    def limits(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest sum of squared errors that the histogram allows, (candidates,) each."""
        low, high = [], []
        size = max(1, _THRESHOLDS_AT_ONCE // self._max_code)
        for some_lower, some_upper in zip(lower.split(size), upper.split(size), strict=True):
            found = self.thresholds(some_lower, some_upper)
            outer = found.outer.sum(dim=1)
            low.append(self.errors(some_lower, some_upper, outer + found.inner_high.sum(dim=1)))
            high.append(self.errors(some_lower, some_upper, outer + found.inner_low.sum(dim=1)))
        return torch.cat(low), torch.cat(high)

    def rounding(self, lower: Tensor) -> float:
        """Return a difference of errors below which rounding may decide."""
        return _ROUNDING * (self._sum_of_squares + float(lower.square().max()) * self._num_elements)


class ExactExcess:
    """The excess inside the bins that the thresholds of the remaining candidates cut, from another pass over the data.

    The cut bins are divided at the thresholds; counts and sums in the parts then leave no doubt, in memory that does
    not depend on the amount of data.

    Args:
        thresholds: of the remaining candidates.
        histogram: of the data of the first pass.
    """

    def __init__(self, thresholds: Thresholds, histogram: AlignedHistogram) -> None:
        self._thresholds = thresholds
        self._histogram = histogram
        self._open = thresholds.inner_high > thresholds.inner_low
        bins = thresholds.bins[self._open].unique()
        device = histogram.counts.device
        self._edges = torch.cat([bins.double(), thresholds.places[self._open]]).unique().to(device)  # sorted
        self._is_cut = torch.zeros(histogram.num_bins, dtype=torch.bool, device=device)
        self._is_cut[bins.to(device)] = True
        self._counts = torch.zeros(len(self._edges), dtype=torch.int64, device=device)
        self._sums = torch.zeros(len(self._edges), dtype=torch.float64, device=device)

    def add(self, values: Tensor) -> None:
        """Look at float32 values, one axis, of the second pass."""
        for bins, fractions in self._histogram.locate(values):
            chosen = self._is_cut.index_select(0, bins).nonzero().squeeze(1)
            positions = bins[chosen] + fractions[chosen].clamp_(max=_LARGEST_FRACTION)
            parts = torch.searchsorted(self._edges, positions, right=True).sub_(1)
            self._counts.scatter_add_(0, parts, torch.ones_like(parts))
            self._sums.scatter_add_(0, parts, positions)

    def total(self) -> Tensor:
        """Return for each candidate the sum over k of E(t_k), (candidates,).

        Elements that rounding carried over the edge of a bin between the passes (see `Calibrator`) are a few out of
        many; whatever they add, the excess in a bin stays within the limits that the first pass proved for it.

        Raises:
            QuantizationError: the number of elements in the cut bins differs from that of the first pass by more than
                1/64 of all elements (by more than one in small data).
        """
        moved = abs(int(self._counts.sum()) - int(self._histogram.counts[self._is_cut].sum()))
        if moved > max(1, _MOVED_SHARE * int(self._histogram.counts.sum())):
            raise QuantizationError(
                "The second calibration pass saw other values than the first; every pass must see the same data. "
                "Put the network into eval mode and fix the random crops."
            )
        count_above, sum_above = (_sums_from_here(x.cpu()) for x in (self._counts, self._sums))
        places, bins = self._thresholds.places[self._open], self._thresholds.bins[self._open]
        edges = self._edges.cpu()
        start, end = torch.searchsorted(edges, places), torch.searchsorted(edges, (bins + 1).double())
        inner = self._thresholds.inner_low.clone()
        found = (sum_above[start] - sum_above[end]) - places * (count_above[start] - count_above[end])
        limits = inner[self._open], self._thresholds.inner_high[self._open]
        inner[self._open] = found.clamp(*limits)
        return (self._thresholds.outer + inner).sum(dim=1)


def _sums_of_later(values: Tensor) -> Tensor:
    """Return for each entry the sum of all entries behind it."""
    return _sums_from_here(values)[1:]


def _sums_from_here(values: Tensor) -> Tensor:
    """Return for each entry the sum of it and all entries behind it, and 0 at the end: one entry more."""
    return torch.nn.functional.pad(values.flip(0).cumsum(0).flip(0), (0, 1))
