"""Percentiles, and how much the range varies from sample to sample."""

import torch
from torch import Tensor

from basicsr.quant.calibration import VaryingBounds
from basicsr.quant.calibrators.percentile_calibrator import PercentileCalibrator
from basicsr.quant.ops.samples import by_sample
from basicsr.quant.spec import QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("DDTB")
class DDTBCalibrator(PercentileCalibrator):
    """Percentiles of all data for the bounds, and the variance of the samples' ranges (DDTB, arXiv 2203.03844); for activations.

    The variance of the largest value of a sample plus that of the smallest, over all samples of the first pass, says in which
    layers dynamic gates are worth their cost. The released code takes it over batches; here it does not depend on the batch size.

    Args:
        spec: the quantizer.
        lower: percentile of the lower bound, 0 to 100.
        upper: percentile of the upper bound, larger than `lower`.
    """

    gives = VaryingBounds

    def __init__(self, spec: QuantSpec, /, *, lower: float = 1.0, upper: float = 99.0) -> None:
        super().__init__(spec, lower=lower, upper=upper)
        self._extremes: list[Tensor] = []  # (2, samples)

    def update(self, tensor: Tensor) -> None:
        """Look at one batch, whose samples lie along axis 0; see `BoundsCalibrator.update`."""
        super().update(tensor)
        if not self._elements_of_first_pass:
            samples = by_sample(tensor.detach().float(), None).squeeze(1)  # N, elements
            self._extremes.append(torch.stack(samples.aminmax(dim=1)).double())

    def finish(self) -> VaryingBounds:
        """Return the bounds as `BoundsCalibrator.finish` does, with the variance of the range."""
        bounds = super().finish()
        variances = torch.cat(self._extremes, dim=1).var(dim=1, correction=0)
        return VaryingBounds(**vars(bounds), range_variance=float(variances.sum()))
