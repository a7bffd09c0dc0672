"""Quantizer of weights by their standard deviation."""

from typing import Literal

from torch import Tensor

from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.ops.gaussian import OPTIMAL_STEPS
from basicsr.quant.quantizers.base import require_symmetry
from basicsr.quant.quantizers.current_weight import CurrentWeightQuantizer
from basicsr.quant.spec import QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("DAQWeight")
class DAQWeightQuantizer(CurrentWeightQuantizer):
    """2**bits values symmetric about 0 in steps of d * sigma, with sigma of the current weight (DAQ, WACV 2022, section 3).

    d is the optimal step for a standard normal distribution. 0 is not among the values. The gradient is that of the
    identity, for clipped weights too.

    Args:
        spec: bits and granularity; symmetric.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        step: `optimal` for the bits, as stated; `released` for one bit fewer, as in the released code.

    Raises:
        QuantizationError: the specification is not symmetric.
    """

    clips_gradient = False

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        /,
        *,
        step: Literal["optimal", "released"] = "optimal",
    ) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, True, "DAQWeight")
        self._relative_step = OPTIMAL_STEPS[spec.bits if step == "optimal" else spec.bits - 1]

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outermost values, d * sigma * (2**bits - 1) / 2 on both sides."""
        rows = self._rows(weight)
        deviation = rows.std(dim=1, correction=min(1, rows.shape[1] - 1)).reshape(self.bounds_shape)
        upper = (deviation * (self._relative_step * self.spec.max_code / 2)).clamp_min(MINIMAL_WIDTH)
        return -upper, upper
