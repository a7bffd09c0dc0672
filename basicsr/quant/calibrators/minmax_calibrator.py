"""The bounds are the smallest and the largest value."""

import torch

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("MinMax")
class MinMaxCalibrator(BoundsCalibrator):
    """Minimum and maximum of the data; with `symmetric`, -u and u with u the largest absolute value."""

    def _find_bounds(self) -> FoundBounds:
        lower, upper = self._lowest.double(), self._highest.double()
        if self.spec.symmetric:
            upper = torch.maximum(-lower, upper)
            lower = -upper
        return FoundBounds(lower, upper)
