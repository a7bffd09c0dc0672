"""The bounds are percentiles."""

import math

import torch
from torch import Tensor

from basicsr.quant.calibrators.base import BoundsCalibrator, FoundBounds
from basicsr.quant.search.order_statistics import OrderStatistics
from basicsr.quant.search.threads import single_thread
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY


@CALIBRATOR_REGISTRY.register("Percentile")
class PercentileCalibrator(BoundsCalibrator):
    """Exact percentiles with linear interpolation between neighbours (as `numpy.percentile`), of data of any size.

    Two passes per tensor; four per channel, where each channel needs its own counts and so smaller ones. Where both
    percentiles coincide although the data vary (a sparse map with more zeros than `upper` percent), minimum and
    maximum are used instead and `Bounds.search` is `minmax`. With `symmetric`, u is the larger absolute value.

    Args:
        lower: percentile of the lower bound, 0 to 100.
        upper: percentile of the upper bound, larger than `lower`.
        magnitude: take the percentile `upper` of |x| for u, and -u and u for the bounds; `lower` is not used.

    Raises:
        QuantizationError: not 0 <= lower < upper <= 100.
    """

    def __init__(self, spec: QuantSpec, /, *, lower: float = 1.0, upper: float = 99.0, magnitude: bool = False) -> None:
        super().__init__(spec)
        if not 0 <= lower < upper <= 100:
            raise QuantizationError(
                f"The percentiles are lower {lower} and upper {upper}, but must hold 0 <= lower < upper <= 100."
            )
        self._percentiles = (lower, upper)
        self._magnitude = magnitude
        self._channels: list[OrderStatistics] = []
        self._interpolation: list[tuple[int, int, float]] = []  # rank, next rank, share of the latter

    def _observe(self, rows: Tensor) -> None:
        if not self._channels:
            digit_bits = 16 if self.spec.channel_axis is None else 8
            self._channels = [OrderStatistics(digit_bits) for _ in rows]
        with single_thread():
            for channel, row in zip(self._channels, rows, strict=True):
                channel.add(row.abs() if self._magnitude else row)

    def _needs_another_pass(self) -> bool:
        if not self._interpolation:
            last = self._channels[0].count() - 1
            for percentile in self._percentiles:
                position = percentile / 100 * last
                rank = min(math.floor(position), last)
                self._interpolation.append((rank, min(rank + 1, last), position - rank))
        ranks = [rank for low, high, _ in self._interpolation for rank in (low, high)]
        return any([channel.narrow(ranks) for channel in self._channels])

    def _find_bounds(self) -> FoundBounds:
        pairs = [self._percentiles_of(channel) for channel in self._channels]
        lower, upper = torch.tensor(pairs, dtype=torch.float64, device=self._lowest.device).T  # (C,), (C,)
        minimum, maximum = self._lowest.double(), self._highest.double()
        if self._magnitude:
            lower = -upper
        if self.spec.symmetric or self._magnitude:
            upper, maximum = torch.maximum(lower.abs(), upper.abs()), torch.maximum(minimum.abs(), maximum.abs())
            lower, minimum = -upper, -maximum
        # digits of different passes may not go together where rounding differed between them, see `Calibrator`
        lower, upper = lower.clamp(minimum, maximum), upper.clamp(minimum, maximum)
        coincide = lower == upper
        search = "minmax" if (coincide & (self._lowest != self._highest)).any() else None
        return FoundBounds(torch.where(coincide, minimum, lower), torch.where(coincide, maximum, upper), search=search)

    def _percentiles_of(self, channel: OrderStatistics) -> list[float]:
        values = channel.values()
        neighbours = zip(values[::2], values[1::2], self._interpolation, strict=True)
        # the nearer neighbour is the starting point, which keeps the result between both
        return [
            low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
            for low, high, (_, _, share) in neighbours
        ]
