"""The bounds are the smallest and the largest value."""

import torch

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("MinMax")
class MinMaxCalibrator(BoundsCalibrator):
    """Minimum and maximum of the data; with `symmetric`, -u and u with u the largest absolute value.

    Args:
        spec: the quantizer.
        integer_zero_point: move both bounds together so that 0 is a code, the zero point z = round(-min / s) with the step
            s = (max - min) / (2**bits - 1): the lower bound becomes -z s. Where the data lie on one side of 0, z is no code but
            still a whole number. The weights of DFSQ (arXiv 2305.05888) are quantized so, and integer kernels need it.

    Raises:
        QuantizationError: an integer zero point is asked of symmetric bounds, which have no 0.
    """

    def __init__(self, spec: QuantSpec, /, *, integer_zero_point: bool = False) -> None:
        super().__init__(spec)
        if integer_zero_point and spec.symmetric:
            raise QuantizationError(
                f"The {spec.num_levels} values between symmetric bounds do not contain 0, so there is no integer zero point; "
                "use either the option integer_zero_point or symmetric bounds."
            )
        self._integer_zero_point = integer_zero_point

    def _find_bounds(self) -> FoundBounds:
        lower, upper = self._lowest.double(), self._highest.double()
        if self.spec.symmetric:
            upper = torch.maximum(-lower, upper)
            lower = -upper
        if self._integer_zero_point:
            width = upper - lower
            step = width / self.spec.max_code
            lower = step * (lower / step).round()
            upper = lower + width
        return FoundBounds(lower, upper)
