"""Symmetric quantizer of weights by their largest magnitude."""

from torch import Tensor

from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.quantizers.base import StatedRange, require_symmetry
from basicsr.quant.quantizers.current_weight import CurrentWeightQuantizer
from basicsr.quant.spec import QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("PAMSWeight")
class PAMSWeightQuantizer(CurrentWeightQuantizer):
    """Whole multiples of max|W| / (2**(bits-1) - 1), of the current weight (PAMS, arXiv 2011.04212).

    These are 2**bits - 1 values, from -max|W| to max|W|; the gradient is that of the identity.

    Args:
        spec: bits and granularity; symmetric.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.

    Raises:
        QuantizationError: the specification is not symmetric.
    """

    clips_gradient = False

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, True, "PAMSWeight")

    def stated_range(self, weight: Tensor | None = None, /) -> StatedRange:
        """Return the bounds, with max|W| for the largest value."""
        stated = super().stated_range(weight)
        return stated._replace(largest=-stated.lower)

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return -max|W|, and what the largest code stands for, which no weight has: one step above max|W|."""
        largest = self._rows(weight).abs().amax(dim=1).reshape(self.bounds_shape).clamp_min(MINIMAL_WIDTH)
        return -largest, largest + largest / (self.spec.num_levels // 2 - 1)
