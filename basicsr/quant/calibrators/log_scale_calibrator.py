"""The scale of powers of the root of 1/2 with the smallest squared error."""

import torch
from torch import Tensor

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY

_BINS_OF_OCTAVE = 64
_LOWEST, _HIGHEST = -48, 16  # octaves: powers of two that the histogram reaches from and to
_SCALES_OF_OCTAVE, _OCTAVES_TRIED = 16, 8
_THRESHOLD = _BINS_OF_OCTAVE // 4
"""Bins from the logarithm of a value to the threshold below it: values lie half an octave apart, and rounding is half-way between."""


@CALIBRATOR_REGISTRY.register("LogScale")
class LogScaleCalibrator(BoundsCalibrator):
    """The upper bound is the scale of `LogSqrt2` with the smallest squared error, the lower bound 0; one pass, for data without a sign.

    Candidates are 128 scales, 16 to an octave, from the one above the largest value down. Values are counted by their logarithms in bins
    that no threshold of any candidate divides, with their sums and sums of squares, so that the error of each candidate is exact but
    for values on a threshold.

    Args:
        spec: the quantizer, per tensor.

    Raises:
        QuantizationError: the quantizer is per channel.
    """

    def __init__(self, spec: QuantSpec, /) -> None:
        super().__init__(spec)
        if spec.channel_axis is not None:
            raise QuantizationError(
                "LogScale finds one scale for a tensor: set 'quantization:activation_granularity' to per_tensor."
            )
        self._sums = torch.zeros(3, (_HIGHEST - _LOWEST) * _BINS_OF_OCTAVE, dtype=torch.float64)  # of 1, x and x**2

    def _observe(self, rows: Tensor) -> None:
        if bool((self._lowest < 0).any()):
            raise QuantizationError(
                f"The calibration data reach down to {self._lowest.min().item():g}, but powers of a root have no sign: LogSqrt2 is for "
                "softmax maps. Give it no other quantizers in 'quantization:quantizers_by_name'."
            )
        for values in rows.flatten().split(2**18):  # what is computed from a part stays in the cache
            octaves = values.clamp_min(2.0**_LOWEST).log2_().sub_(_LOWEST)
            bins = octaves.mul_(_BINS_OF_OCTAVE).floor_().clamp_(0, self._sums.shape[1] - 1).long()
            for power in range(3):
                weights = values.double() ** power
                self._sums[power] += torch.bincount(bins, weights, minlength=self._sums.shape[1]).cpu()

    def _find_bounds(self) -> FoundBounds:
        occupied = self._sums[0].nonzero()
        top = int(occupied[-1]) + 1
        step = _BINS_OF_OCTAVE // _SCALES_OF_OCTAVE
        first = -(-top // step) * step
        scales = [first - step * i for i in range(_SCALES_OF_OCTAVE * _OCTAVES_TRIED)]
        errors = torch.stack([self._error(scale) for scale in scales])
        best = int(errors.argmin())
        upper = torch.tensor([_value(scales[best])], dtype=torch.float64, device=self._lowest.device)
        return FoundBounds(torch.zeros_like(upper), upper, float(errors[best] / self._sums[0].sum()))

    def _error(self, scale: int) -> Tensor:
        """Return the sum of squared errors for the scale at the lower end of a bin."""
        powers = self.spec.max_code  # all codes but the one of 0
        ends = torch.tensor([scale - _THRESHOLD - 2 * _THRESHOLD * code for code in range(powers)]).clamp_min(0)
        below = torch.nn.functional.pad(self._sums.cumsum(dim=1), (1, 0))  # 3, bins + 1: sums of all bins below
        ends = torch.cat([ends.new_tensor([self._sums.shape[1]]), ends, ends.new_zeros(1)])
        count, total, squares = below[:, ends[:-1]] - below[:, ends[1:]]  # of each code, the scale first
        values = torch.tensor(
            [_value(scale) * 0.5 ** (code / 2) for code in range(powers)] + [0.0], dtype=torch.float64
        )
        return (squares - 2 * values * total + values**2 * count).sum()


def _value(lower_end: int) -> float:
    """Return the value at the lower end of a bin."""
    return 2.0 ** (lower_end / _BINS_OF_OCTAVE + _LOWEST)
