"""A histogram of streamed data that equals the one of all data at once, whatever the order and the sizes of the batches."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from basicsr.quant.kernels.counting import count_aligned

_CHUNK = 2**16  # elements; what is computed from a chunk stays in the cache
_SMALLEST_EXPONENT = -149  # of the smallest positive float32
_MERGE_STEP = 30  # halvings at once; keeps integers below 2**53


class AlignedHistogram:
    """Counts, and sums of positions, in bins [i w, (i + 1) w) whose width w is a power of two.

    The bin of an element is floor(x / w), exact because dividing by a power of two is. When the range of the data
    grows beyond `max_bins` bins, w doubles and pairs of bins (2i, 2i + 1) merge. The final w depends only on minimum
    and maximum of all data, so the counts do not depend on the order in which the data came; sums of fractions differ
    in rounding only (order of float64 additions; on CUDA this order is not fixed unless
    `torch.use_deterministic_algorithms` asks for it).

    Positions are measured in bins from the first bin's lower edge, so that they are small for data far from zero.
    No bin is narrower than the spacing of float32 at the largest magnitude.

    Args:
        max_bins: memory is 16 bytes for each bin.
        device: where the histogram lives and the data come from.

    Attributes:
        lowest, highest: the covered range.
        exponent: w is 2**exponent.
        first_bin: the index floor(x / w) of the first bin.
        counts: int64 (bins,).
        fraction_sums: float64 (bins,); sums of x / w - floor(x / w).
        fraction_squares: float64, shape (); sum of the squares of these fractions over all bins.
    """

    def __init__(self, max_bins: int, device: torch.device) -> None:
        self.max_bins = max_bins
        self.lowest, self.highest = math.inf, -math.inf
        self.exponent = _SMALLEST_EXPONENT
        self.first_bin = 0
        self.counts = torch.zeros(0, dtype=torch.int64, device=device)
        self.fraction_sums = torch.zeros(0, dtype=torch.float64, device=device)
        self.fraction_squares = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def num_bins(self) -> int:
        """Number of bins that the covered range takes."""
        return len(self.counts)

    @property
    def width(self) -> float:
        """Width w of a bin."""
        return math.ldexp(1.0, self.exponent)

    def position(self, value: float) -> float:
        """Return where a value lies, in bins from the lower edge of the first bin."""
        return math.ldexp(value, -self.exponent) - self.first_bin

    def cover(self, lowest: float, highest: float) -> None:
        """Widen the range to include these two values, which are float32 numbers."""
        self.lowest, self.highest = min(lowest, self.lowest), max(highest, self.highest)
        exponent = _bin_exponent(self.lowest, self.highest, self.max_bins)
        self._merge(exponent - self.exponent)
        first_bin, last_bin = (math.floor(math.ldexp(value, -exponent)) for value in (self.lowest, self.highest))
        before = self.first_bin - first_bin if self.num_bins else 0
        after = last_bin - first_bin + 1 - before - self.num_bins
        self.counts = torch.nn.functional.pad(self.counts, (before, after))
        self.fraction_sums = torch.nn.functional.pad(self.fraction_sums, (before, after))
        self.first_bin = first_bin

    def add(self, values: Tensor) -> None:
        """Count float32 values, one axis, inside the covered range."""
        if count_aligned(values, self.exponent, self.first_bin, self.counts, self.fraction_sums, self.fraction_squares):
            return
        ones = self.counts.new_ones(min(len(values), _CHUNK))
        for bins, fractions in self.locate(values):
            self.counts.scatter_add_(0, bins, ones[: len(bins)])
            self.fraction_sums.scatter_add_(0, bins, fractions)
            self.fraction_squares += torch.linalg.vector_norm(fractions).square()

    def locate(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, chunk by chunk, the bin (int64, from 0) and the fraction (float64, in it) of each element.

        The fraction of a tiny negative number, just below the upper edge of its bin, may round to 1.
        """
        inverse_width = math.ldexp(1.0, -self.exponent)
        for chunk in values.split(_CHUNK):
            positions = chunk.to(torch.float64).mul_(inverse_width)
            floors = positions.floor()
            yield floors.to(torch.int64).sub_(self.first_bin), positions.sub_(floors)

    def _merge(self, halvings: int) -> None:
        """Make the bins 2**halvings times as wide."""
        while halvings > 0 and self.num_bins:
            step = min(halvings, _MERGE_STEP)
            old = torch.arange(self.num_bins, device=self.counts.device) + self.first_bin
            new = old >> step
            offset = (old - (new << step)).double()  # position of the old bin in the new one, in old bins
            counts = self.counts.double()
            self.fraction_squares += (offset * (2 * self.fraction_sums + offset * counts)).sum()
            self.fraction_squares /= 4.0**step
            first_bin = self.first_bin >> step
            bins, size = new - first_bin, int(new[-1]) - first_bin + 1
            sums = (self.fraction_sums + offset * counts) / 2.0**step
            self.fraction_sums = sums.new_zeros(size).index_add_(0, bins, sums)
            self.counts = self.counts.new_zeros(size).index_add_(0, bins, self.counts)
            self.first_bin = first_bin
            halvings -= step
            self.exponent += step
        self.exponent += halvings


def _bin_exponent(lowest: float, highest: float, max_bins: int) -> int:
    """Return the smallest e such that bins of width 2**e cover the range with at most `max_bins` bins.

    Both limits, the number of bins and the spacing of float32, can only grow with the range; hence e does not depend
    on the order in which the range grew.
    """
    exponent = max(_SMALLEST_EXPONENT, math.frexp(max(abs(lowest), abs(highest)))[1] - 24)
    if highest > lowest:
        exponent = max(exponent, math.frexp((highest - lowest) / max_bins)[1] - 2)
    while math.floor(math.ldexp(highest, -exponent)) - math.floor(math.ldexp(lowest, -exponent)) >= max_bins:
        exponent += 1
    return exponent
