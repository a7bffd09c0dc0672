"""Asymmetric quantizer of weights between two percentiles."""

from torch import Tensor

from basicsr.quant.ops.zero_point import with_integer_zero_point
from basicsr.quant.quantizers.base import require_symmetry
from basicsr.quant.quantizers.current_weight import CurrentWeightQuantizer, percentile_of_rows
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("DDTBWeight")
class DDTBWeightQuantizer(CurrentWeightQuantizer):
    """2**bits values between two percentiles of the current weight (DDTB, arXiv 2203.03844); clipped weights get no gradient.

    Args:
        spec: bits and granularity; not symmetric.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        lower: percentile of the lower bound, with linear interpolation.
        upper: percentile of the upper bound, larger than `lower`.
        integer_zero_point: move the bounds so that 0 is one of the values, see `with_integer_zero_point`.

    Raises:
        QuantizationError: a symmetric specification, or not 0 <= lower < upper <= 100.
    """

    clips_gradient = True

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        /,
        *,
        lower: float = 1.0,
        upper: float = 99.0,
        integer_zero_point: bool = True,
    ) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, False, "DDTBWeight")
        if not 0 <= lower < upper <= 100:
            raise QuantizationError(
                f"The percentiles of DDTBWeight are lower {lower} and upper {upper}, but must hold 0 <= lower < upper <= 100."
            )
        self._percentiles = (lower, upper)
        self._integer_zero_point = integer_zero_point

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the percentiles, moved so that 0 is one of the values where that is asked for."""
        rows = self._rows(weight)
        lower, upper = (percentile_of_rows(rows, p).reshape(self.bounds_shape) for p in self._percentiles)
        return with_integer_zero_point(lower, upper, self.spec.bits) if self._integer_zero_point else (lower, upper)
