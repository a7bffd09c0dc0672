"""What quantizers of weights have in common whose grid follows from the weight itself."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from basicsr.quant.calibration import CalibrationResult
from basicsr.quant.ops import functional
from basicsr.quant.ops.step_functional import straight_through
from basicsr.quant.quantizers.base import Quantizer, StatedRange
from basicsr.quant.spec import QuantizationError


class CurrentWeightQuantizer(Quantizer[CalibrationResult]):
    """A quantizer of weights whose bounds are computed from the current weight in every forward pass.

    It has no state to calibrate: any calibrator will do, since its result is not used. The same weight
    gives the same bounds in training and evaluation. No gradient goes through the bounds.

    Attributes:
        clips_gradient: weights beyond the bounds get no gradient; otherwise the gradient is that of the identity.
    """

    takes = CalibrationResult
    roles = ("weight",)
    clips_gradient: ClassVar[bool]

    @abstractmethod
    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what code 0 and code 2**bits - 1 stand for in a weight, each of the shape () or (C,), without a gradient."""

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with a gradient to `x`."""
        bounds = self.bounds(x.detach())
        if self.clips_gradient:
            return functional.fake_quantize(x, *bounds, self.spec.bits, self.spec.channel_axis)
        values = functional.fake_quantize(x.detach(), *bounds, self.spec.bits, self.spec.channel_axis)
        return straight_through(x, values)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        return functional.quantize(x, *self.bounds(x.detach()), self.spec.bits, self.spec.channel_axis)

    def affine_bounds(self, weight: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """Return the bounds for a weight.

        Raises:
            QuantizationError: no weight is given.
        """
        if weight is None:
            raise QuantizationError(
                f"The grid of the quantizer '{self.name}', a {type(self).__name__}, follows from the weight that it "
                "quantizes: give the weight."
            )
        return self.bounds(weight.detach())

    def load_calibration(self, _result: CalibrationResult) -> None:
        """Mark the quantizer as calibrated; nothing of the result is needed."""
        self.mark_calibrated()

    def load_range(self, _stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Mark the quantizer as calibrated: its range is that of the current weight, whatever the bounds were before."""
        self.mark_calibrated()
        return "the range of the current weight, not the bounds"

    def _rows(self, weight: Tensor) -> Tensor:
        """Return the weight as float32 (C, elements), one row if per tensor."""
        axis = self.spec.channel_axis
        rows = weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).flatten(1)  # C, elements
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def percentile_of_rows(rows: Tensor, percentile: float) -> Tensor:
    """Return a percentile of each row (C, elements), with linear interpolation between neighbours."""
    elements = rows.shape[1]
    position = percentile / 100 * (elements - 1)
    rank = int(position)  # of the neighbour below, in ascending order
    # to select the few elements beyond a percentile is many times as fast as to sort all
    if 2 * rank < elements:
        ends = rows.topk(min(rank + 2, elements), dim=1, largest=False).values  # ascending
        below, above = ends[:, rank], ends[:, -1]
    else:
        ends = rows.topk(elements - rank, dim=1).values  # descending
        below, above = ends[:, -1], ends[:, max(ends.shape[1] - 2, 0)]
    return below + (above - below) * (position - rank)
