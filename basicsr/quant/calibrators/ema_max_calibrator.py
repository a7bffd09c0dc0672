"""Symmetric bounds from a moving average of the largest magnitude."""

import torch
from torch import Tensor

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.quant.ops.samples import by_sample
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("EMAMax")
class EMAMaxCalibrator(BoundsCalibrator):
    """Moving average over the batches of the mean over a batch's samples of max |x|; for activations (PAMS, arXiv 2011.04212).

    The average starts with the first batch, and each later batch enters with the weight 1 - decay. In PAMS it runs over the
    first epoch of training, while the weights learn and the activations are not quantized yet; here it runs over the
    calibration crops and the full-precision network. A few batches at the decay of the paper leave it near the first one.
    The result depends on `calibration:batch_size` and on the order of the crops.

    Args:
        spec: the quantizer. The bounds are -u and u, whether it is symmetric or not.
        decay: 0 to below 1; with 0, the last batch alone counts.

    Raises:
        QuantizationError: the decay is out of range, or the channels lie along axis 0, that of the samples.
    """

    def __init__(self, spec: QuantSpec, /, *, decay: float = 0.9997) -> None:
        super().__init__(spec)
        if not 0 <= decay < 1:
            raise QuantizationError(f"The decay of EMAMax is {decay}, but must be at least 0 and below 1.")
        if spec.channel_axis == 0:
            raise QuantizationError(
                "EMAMax averages over samples, which lie along axis 0, as the channels of a weight do; it is for activations. "
                "Calibrate weights by MinMax."
            )
        self._decay = decay
        self._average: Tensor | None = None  # (C,) float64

    def update(self, tensor: Tensor) -> None:
        """Look at one batch, whose samples lie along axis 0; see `BoundsCalibrator.update`."""
        super().update(tensor)
        samples = by_sample(tensor.detach().float(), self.spec.channel_axis)
        mean = samples.abs().amax(dim=2).double().mean(dim=0)  # N, C, elements -> C
        self._average = mean if self._average is None else torch.lerp(mean, self._average, self._decay)

    def _find_bounds(self) -> FoundBounds:
        assert self._average is not None  # there was a batch, or the pass would not have ended
        return FoundBounds(-self._average, self._average)
