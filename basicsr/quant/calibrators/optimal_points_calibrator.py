"""The points with the smallest squared error."""

import torch
from torch import Tensor

from basicsr.quant.calibration import StaticPoints
from basicsr.quant.calibrators.base import CONSTANT_MINIMUM_WIDTH, StreamingCalibrator, finite_range
from basicsr.quant.search.histogram import AlignedHistogram
from basicsr.quant.search.optimal_points import optimal_points
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import CALIBRATOR_REGISTRY

_BINS, _BINS_OF_POINT = 768, 8
"""At least half as many cover the data: of up to 6 bits `_BINS`, of more so many for each point."""


@CALIBRATOR_REGISTRY.register("OptimalPoints")
class OptimalPointsCalibrator(StreamingCalibrator[StaticPoints]):
    """The 2**bits points with the least squared error to all values, see `optimal_points`; one pass.

    Args:
        spec: the quantizer, per tensor and not symmetric.

    Raises:
        QuantizationError: the quantizer is per channel or symmetric.
    """

    gives = StaticPoints

    def __init__(self, spec: QuantSpec, /) -> None:
        super().__init__(spec)
        if spec.channel_axis is not None or spec.symmetric:
            raise QuantizationError(
                "OptimalPoints finds points for a whole tensor, on no side of 0 in particular: set 'quantization:activation_granularity' to "
                "per_tensor and 'quantization:activation_symmetric' to false."
            )
        self._histogram: AlignedHistogram | None = None

    def _look_at(self, tensor: Tensor) -> None:
        values = tensor.reshape(-1)
        (lowest,), (highest,) = (bound.tolist() for bound in finite_range(values[None]))
        if self._histogram is None:
            self._histogram = AlignedHistogram(max(_BINS, _BINS_OF_POINT * self.spec.num_levels), tensor.device)
        self._histogram.cover(lowest, highest)
        self._histogram.add(values)

    def finish(self) -> StaticPoints:
        """Return the points, after `end_pass()` returned False.

        Data of one value have it for a point; the others lie above it, as far apart as rounding asks for.
        """
        self._require_complete()
        assert self._histogram is not None  # there was a batch, or the pass would not have ended
        seen = self._histogram
        constant = seen.lowest == seen.highest
        if constant:
            step = max(abs(seen.lowest) * CONSTANT_MINIMUM_WIDTH, CONSTANT_MINIMUM_WIDTH)
            places = torch.arange(self.spec.num_levels, dtype=torch.float64, device=seen.counts.device)
            return StaticPoints((seen.lowest + step * places).float(), 0.0, constant=True)
        points, error = optimal_points(seen, self.spec.num_levels)
        return StaticPoints(points.float(), error)
