"""The weight quantizer of ODM: a symmetric clipping range that follows the weights."""

import torch
from torch import Tensor, nn

from basicsr.quant import functional
from basicsr.quant.calibration import Bounds
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("ODMWeight")
class ODMWeightQuantizer(Quantizer):
    """Weight clipping correction (ODM, arXiv 2307.13337v2): 2**bits values from -u to u with u = gamma * f(W).

    f(W) is a percentile of |W| of the current weight; gamma, the parameter, starts at 1. So the range follows the weight
    within the same step, and only the correction has to be learned. 2**bits values between -u and u do not contain 0.
    In training mode f(W) is computed from what is quantized. In evaluation mode it is the buffer `magnitude`, which
    the training step, `record_weight` and calibration set: a checkpoint needs no weights to be looked at again, and gamma
    and f(W) fold into one number. Always symmetric, whatever `spec.symmetric` says.

    Calibration only sets `magnitude`, which the first training step replaces: the calibrator
    `{type: Percentile, upper: 99, magnitude: true}` finds f(W) itself.

    Args:
        spec: bits and granularity.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        percentile: f(W) is this percentile of |W|, above 0 and at most 100, interpolated linearly.
        percentile_gradient: let the gradient of the bound also reach the weights that f(W) is read from. The paper does
            not say; the default is that only gamma gets it.

    Raises:
        QuantizationError: the percentile is out of range.
    """

    takes = Bounds
    magnitude: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        /,
        *,
        percentile: float = 99.0,
        percentile_gradient: bool = False,
    ) -> None:
        super().__init__(spec, num_channels)
        if not 0 < percentile <= 100:
            raise QuantizationError(
                f"The percentile of ODMWeight is {percentile}, but must be above 0 and at most 100."
            )
        self._percentile = percentile
        self._percentile_gradient = percentile_gradient
        self.gamma = nn.Parameter(torch.ones(self.bounds_shape))
        self.register_buffer("magnitude", torch.ones(self.bounds_shape))

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper bound for a weight, each of the shape () or (C,)."""
        magnitude = self.magnitude
        if self.training:
            magnitude = self._magnitude_of(weight if self._percentile_gradient else weight.detach())
            self.magnitude.copy_(magnitude.detach())
        upper = self.gamma * magnitude
        return -upper, upper

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x` and to gamma."""
        return functional.fake_quantize(x, *self.bounds(x), self.spec.bits, self.spec.channel_axis)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        return functional.quantize(x, *self.bounds(x), self.spec.bits, self.spec.channel_axis)

    @torch.no_grad()
    def load_calibration(self, result: Bounds) -> None:
        """Take the larger magnitude of two bounds for f(W), and 1 for gamma.

        Raises:
            QuantizationError: a bound is not finite, or both are 0.
        """
        magnitude = torch.maximum(result.lower_bound.abs(), result.upper_bound.abs()).to(self.magnitude)
        if not bool((torch.isfinite(magnitude) & (magnitude > 0)).all()):
            raise QuantizationError(
                f"The bounds for the quantizer '{self.name}' cannot be used: they must be finite and not both be 0. "
                "A weight of zeros or with NaN gives such bounds; look at the full-precision weights."
            )
        self.magnitude.copy_(magnitude)
        self.gamma.fill_(1.0)
        self.mark_calibrated()

    @torch.no_grad()
    def record_weight(self, weight: Tensor) -> None:
        """Store f(W) of a weight for evaluation."""
        self.magnitude.copy_(self._magnitude_of(weight))

    def _magnitude_of(self, weight: Tensor) -> Tensor:
        """Return f(W), the shape () or (C,), float32."""
        axis = self.spec.channel_axis
        rows = weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).flatten(1)  # C, elements
        position = self._percentile / 100 * (rows.shape[1] - 1)
        rank = int(position)  # of the element below the percentile, in ascending order
        # the largest elements are few: selecting them is twenty times as fast as sorting all of them
        largest = rows.abs().float().topk(rows.shape[1] - rank, dim=1).values  # C, k
        below, above = largest[:, -1], largest[:, max(largest.shape[1] - 2, 0)]
        return (below + (above - below) * (position - rank)).reshape(self.bounds_shape)
