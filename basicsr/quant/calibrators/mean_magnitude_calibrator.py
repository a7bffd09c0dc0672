"""The range of the data and their mean magnitude."""

from typing import Any

from torch import Tensor

from basicsr.quant.calibration import MeanMagnitude
from basicsr.quant.calibrators.minmax_calibrator import MinMaxCalibrator
from basicsr.quant.spec import QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("MeanMagnitude")
class MeanMagnitudeCalibrator(MinMaxCalibrator):
    """Mean of |x|, which the first step of LSQ and QuantSR is made of, with minimum and maximum; one pass."""

    gives = MeanMagnitude

    def __init__(self, spec: QuantSpec, /) -> None:
        super().__init__(spec)
        self._sum: Tensor | Any = 0  # (C,) float64
        self._count = 0  # of elements in each channel

    def _observe(self, rows: Tensor) -> None:
        self._sum = self._sum + rows.abs().double().sum(dim=1)
        self._count += rows.shape[1]

    def finish(self) -> MeanMagnitude:
        """Return the bounds as `BoundsCalibrator.finish` does, with the mean magnitude."""
        bounds = super().finish()
        mean = (self._sum / self._count).float()  # C
        return MeanMagnitude(**vars(bounds), mean_magnitude=mean.reshape(bounds.lower_bound.shape))
