"""Bounds from a moving average of minimum and maximum, and the percentile where outliers begin."""

from dataclasses import replace

import torch
from torch import Tensor

from basicsr.quant.calibration import OutlierBounds
from basicsr.quant.calibrators.base import CONSTANT_MINIMUM_WIDTH
from basicsr.quant.calibrators.percentile_calibrator import PercentileCalibrator
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("Outlier")
class OutlierCalibrator(PercentileCalibrator):
    """Range and breakpoint of outlier-aware quantization (arXiv 2511.00682); for activations.

    The bounds are moving averages over the batches of their minima and maxima: the averages start with the first batch, and each later
    batch enters with the weight 1 - decay. They depend on `calibration:batch_size` and on the order of the crops. The breakpoint is the
    percentile of |x| over all data, exact. Where that is 0 although the data vary, it is the largest magnitude, so that nothing is an outlier.

    Args:
        spec: the quantizer, which is not symmetric.
        decay: 0 to below 1; with 0, the last batch alone counts.
        percentile: above 0 and at most 100.

    Raises:
        QuantizationError: decay or percentile is out of range, or the bounds shall be symmetric.
    """

    gives = OutlierBounds

    def __init__(self, spec: QuantSpec, /, *, decay: float = 0.9, percentile: float = 99.0) -> None:
        super().__init__(spec, lower=0.0, upper=percentile, magnitude=True)
        if not 0 <= decay < 1:
            raise QuantizationError(f"The decay of Outlier is {decay}, but must be at least 0 and below 1.")
        if spec.symmetric:
            raise QuantizationError(
                "Outlier finds a lower and an upper bound of their own, and no bounds -u and u: set "
                "'quantization:activation_symmetric' to false."
            )
        self._decay = decay
        self._average: Tensor | None = None  # (2, C) float64: of the minima and of the maxima

    def _observe(self, rows: Tensor) -> None:
        super()._observe(rows)
        if self._elements_of_first_pass:
            return  # a later pass, which only the percentile needs
        extremes = torch.stack(rows.aminmax(dim=1)).double()
        self._average = extremes if self._average is None else torch.lerp(extremes, self._average, self._decay)

    def finish(self) -> OutlierBounds:
        """Return bounds and breakpoint, after `end_pass()` returned False; those of constant data as `BoundsCalibrator.finish` has them."""
        inner = super().finish()  # -percentile and percentile
        assert self._average is not None  # there was a batch, or the pass would not have ended
        shape, constant = inner.upper_bound.shape, (self._lowest == self._highest).reshape(inner.upper_bound.shape)
        lower, upper = (average.float().reshape(shape) for average in self._average)
        lower = torch.where(constant, inner.lower_bound, lower)
        upper = torch.where(constant, inner.upper_bound, upper)
        magnitude = torch.where(constant, lower.abs(), inner.upper_bound).clamp_min(CONSTANT_MINIMUM_WIDTH)
        bounds = replace(inner, lower_bound=lower, upper_bound=torch.maximum(upper, _above(lower)), search=None)
        return OutlierBounds(**vars(bounds), breakpoint=magnitude)


def _above(bound: Tensor) -> Tensor:
    return torch.nextafter(bound, torch.full_like(bound, torch.inf))
