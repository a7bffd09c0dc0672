"""The weight quantizer of ODM: a symmetric clipping range that follows the weights, with a learned correction."""

import torch
from torch import Tensor, nn

from basicsr.quant.ops import functional
from basicsr.quant.quantizers.base import StatedRange, require_symmetry
from basicsr.quant.quantizers.current_weight import CurrentWeightQuantizer, percentile_of_rows
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("ODMWeight")
class ODMWeightQuantizer(CurrentWeightQuantizer):
    """Weight clipping correction (ODM, arXiv 2307.13337v2): 2**bits values from -u to u with u = gamma * f(W).

    f(W) is a percentile of |W| of the current weight, and gamma, the parameter, starts at 1. So the range never lags behind
    the weight, and only the correction has to be learned. 2**bits values between -u and u do not contain 0. A checkpoint
    holds gamma and the weight, and so the range; the two factors fold into one number.

    Args:
        spec: bits and granularity; symmetric.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        percentile: f(W) is this percentile of |W|, above 0 and at most 100, interpolated linearly.
        percentile_gradient: let the gradient of the bound also reach the weights that f(W) is read from. The paper does
            not say; the default is that only gamma gets it.

    Raises:
        QuantizationError: the specification is not symmetric, or the percentile is out of range.
    """

    clips_gradient = True

    only_gradients = ("percentile_gradient",)

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
        require_symmetry(spec, True, "ODMWeight")
        if not 0 < percentile <= 100:
            raise QuantizationError(
                f"The percentile of ODMWeight is {percentile}, but must be above 0 and at most 100."
            )
        self._percentile = percentile
        self._percentile_gradient = percentile_gradient
        self.gamma = nn.Parameter(torch.ones(self.bounds_shape))

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper bound for a weight, each of the shape () or (C,), with a gradient to gamma."""
        magnitude = percentile_of_rows(self._rows(weight).abs(), self._percentile)
        upper = self.gamma * magnitude.reshape(self.bounds_shape)
        return -upper, upper

    @torch.no_grad()
    def load_range(self, stated: StatedRange, weight: Tensor | None = None, /) -> str:
        """Take for gamma the multiple of f(W) that the larger magnitude of both bounds is; 1 where f(W) is 0.

        Raises:
            QuantizationError: no weight is given.
        """
        self.gamma.fill_(1.0)
        _, magnitude = self.affine_bounds(weight)
        multiple = stated.in_shape(self.bounds_shape).magnitude / magnitude
        self.gamma.copy_(torch.where(magnitude > 0, multiple, 1.0))
        self.mark_calibrated()
        return f"gamma is the larger magnitude of both bounds over percentile {self._percentile:g} of |W|"

    def parameter_units(self) -> dict[str, Tensor]:
        """Return the quantization step over f(W): 2 gamma / (2**bits - 1)."""
        return {"gamma": 2 * self.gamma.detach() / self.spec.max_code}

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x` and to gamma."""
        bounds = self.bounds(x if self._percentile_gradient else x.detach())
        return functional.fake_quantize(x, *bounds, self.spec.bits, self.spec.channel_axis)
