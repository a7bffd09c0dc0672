"""Bounds from the mean over batches of the largest magnitude."""

import torch
from torch import Tensor

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("MeanMax")
class MeanMaxCalibrator(BoundsCalibrator):
    """The mean u over the batches of max |x|; the bounds are 0 and u of data without negative values, otherwise -u and u.

    FQSR (ACM MM 2021) begins there, with its first 20 batches. The result depends on `calibration:batch_size`.

    Args:
        spec: the quantizer; with `symmetric`, the bounds are -u and u of any data.
    """

    _sum: Tensor | None = None  # (C,) float64
    _num_batches = 0

    def _observe(self, rows: Tensor) -> None:
        largest = rows.abs().amax(dim=1).double()
        self._sum = largest if self._sum is None else self._sum + largest
        self._num_batches += 1

    def _find_bounds(self) -> FoundBounds:
        assert self._sum is not None  # there was a batch, or the pass would not have ended
        upper = self._sum / self._num_batches
        signed = (self._lowest < 0) | self.spec.symmetric
        return FoundBounds(torch.where(signed, -upper, 0.0), upper)
