"""Density-based dual clipping (DBDC) of PTQ4SR."""

from typing import Literal

import torch
from torch import Tensor

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.quant.search.threads import single_thread
from basicsr.quant.spec import MAX_BITS, QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY

_CHUNK = 2**16  # elements; what is computed from a chunk stays in the cache

Batches = Literal["joint", "mean"]


@CALIBRATOR_REGISTRY.register("DBDC")
class DBDCCalibrator(BoundsCalibrator):
    """Bounds that cut off the sparse ends of a histogram (Tu et al., CVPR 2023, section 3.2).

    Of equal bins over [min, max], the one at the end with fewer elements is dropped (the last one where both have as many), until
    at most 1 - `removed_mass` of the elements are kept. The bounds are min + w (first + 1) and min + w (last + 1), with the
    width w and the indices of the kept bins from 0, as in the released code: the upper edges of both, so that the lower
    bound lies one bin further inside than the kept bins do.

    Where one bin alone holds what is to be kept (a sparse map), the bounds would coincide; minimum and maximum are used
    instead and `Bounds.search` is `minmax`. With `symmetric`, u is the larger absolute value of both bounds. Each channel
    of a per-channel quantizer has its own histogram.

    Args:
        removed_mass: share of the elements to drop, p; 5e-4 is the setting of the paper's 4-bit EDSR.
        removed_mass_8_bits: the same for quantizers of 8 bits, such as those of the first and the last layer beside others of
            4 bits; by default `removed_mass`.
        num_bins: bins of the histogram.
        batches: `joint` clips one histogram of all data, in two passes, and does not depend on how the data are cut into
            batches; `mean` clips each batch alone, in one pass, and takes the mean of the bounds, as published.

    Raises:
        QuantizationError: not 0 < removed mass < 1, or fewer than 2 bins.
    """

    def __init__(
        self,
        spec: QuantSpec,
        /,
        *,
        removed_mass: float = 5e-4,
        removed_mass_8_bits: float | None = None,
        num_bins: int = 2048,
        batches: Batches = "joint",
    ) -> None:
        super().__init__(spec)
        if spec.bits == MAX_BITS and removed_mass_8_bits is not None:
            removed_mass = removed_mass_8_bits
        if not 0 < removed_mass < 1:
            raise QuantizationError(f"The removed mass is {removed_mass}, but must be above 0 and below 1.")
        if num_bins < 2:
            raise QuantizationError(f"num_bins is {num_bins}, but must be at least 2.")
        self._removed_mass = removed_mass
        self._num_bins = num_bins
        self._batches = batches
        self._counts: Tensor | None = None  # (C, num_bins) int64, in the second pass of `joint`
        self._sums: list[Tensor] = []  # of the lower and of the upper bounds of the batches, (C,) float64 each
        self._num_batches = 0
        self._search: str | None = None

    def _observe(self, rows: Tensor) -> None:
        if self._batches == "joint":
            if self._counts is not None:
                _count(rows, self._lowest.double(), self._highest.double(), self._counts)
            return
        lowest, highest = (bound.double() for bound in rows.aminmax(dim=1))
        counts = rows.new_zeros(len(rows), self._num_bins, dtype=torch.int64)
        _count(rows, lowest, highest, counts)
        bounds = self._clip(counts, lowest, highest)
        self._sums = [a + b for a, b in zip(self._sums, bounds, strict=True)] if self._sums else list(bounds)
        self._num_batches += 1

    def _needs_another_pass(self) -> bool:
        if self._batches == "mean" or self._counts is not None:
            return False
        self._counts = self._lowest.new_zeros(len(self._lowest), self._num_bins, dtype=torch.int64)
        return True

    def _find_bounds(self) -> FoundBounds:
        if self._batches == "mean":
            lower, upper = (total / self._num_batches for total in self._sums)
        else:
            assert self._counts is not None  # made after the first pass
            lower, upper = self._clip(self._counts, self._lowest.double(), self._highest.double())
        if self.spec.symmetric:
            upper = torch.maximum(lower.abs(), upper.abs())
            lower = -upper
        return FoundBounds(lower, upper, search=self._search)

    def _clip(self, counts: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """Return both bounds, (C,) float64, of histograms (C, num_bins) over [lowest, highest]."""
        first, last = kept_bins(counts, self._removed_mass)
        coincide = first >= last
        if (coincide & (lowest < highest)).any():
            self._search = "minmax"
        width = (highest - lowest) / self._num_bins
        lower, upper = lowest + width * (first + 1), lowest + width * (last + 1)
        return torch.where(coincide, lowest, lower), torch.where(coincide, highest, upper)


def kept_bins(counts: Tensor, removed_mass: float) -> tuple[Tensor, Tensor]:
    """Return the first and the last bin that density-based dual clipping keeps.

    While more than 1 - `removed_mass` of the elements are kept, the first bin is dropped if it holds strictly fewer than the last
    one, otherwise the last one is. So a bin stays until all at the other end that hold less are gone: the bins of
    both ends go in the order of the largest count met so far from their end, and of equal ones the last goes first. Sorting
    by it gives all steps of all channels at once.

    Args:
        counts: int64 (C, bins), each channel with at least one element.
        removed_mass: above 0 and below 1.

    Returns:
        Two int64 tensors of shape (C,), indices from 0. The first one is not the smaller one where at most one bin is kept.
    """
    num_bins = counts.shape[1]
    from_end = counts.flip(1)
    # twice the record of each bin, plus 1 from the left to come second where records are equal
    records = torch.cat([counts.cummax(dim=1).values * 2 + 1, from_end.cummax(dim=1).values * 2], dim=1)  # C, 2 * bins
    order = records.sort(dim=1, stable=True).indices
    total = counts.sum(dim=1, keepdim=True)
    kept = total - torch.cat([counts, from_end], dim=1).gather(1, order).cumsum(dim=1)  # after each step
    num_steps = (kept.double() > (1 - removed_mass) * total.double()).sum(dim=1, keepdim=True) + 1
    taken = torch.arange(2 * num_bins, device=counts.device) < num_steps
    first = ((order < num_bins) & taken).sum(dim=1)
    return first, num_bins - 1 - (num_steps.squeeze(1) - first)


def _count(rows: Tensor, lowest: Tensor, highest: Tensor, counts: Tensor) -> None:
    """Add float32 rows (C, elements) to histograms (C, bins) over [lowest, highest], (C,) float64, in place."""
    num_bins = counts.shape[1]
    extent = highest - lowest
    bins_per_unit = torch.where(extent > 0, num_bins / extent, 0.0)[:, None]
    first_of_channel = torch.arange(len(rows), device=rows.device)[:, None] * num_bins
    flat, one = counts.view(-1), counts.new_ones(1)  # C * bins
    with single_thread():
        for chunk in rows.split(max(1, _CHUNK // len(rows)), dim=1):
            bins = chunk.double().sub_(lowest[:, None]).mul_(bins_per_unit).to(torch.int64)
            bins.clamp_(max=num_bins - 1)  # the maximum belongs to the last bin
            bins = bins.add_(first_of_channel).reshape(-1)  # C, elements -> C * elements
            flat.scatter_add_(0, bins, one.expand_as(bins))
