"""Symmetric quantizer of activations with a learned largest magnitude."""

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.calibrators.base import CONSTANT_MINIMUM_WIDTH
from basicsr.quant.ops.step_functional import fake_quantize_by_step, quantize_by_step
from basicsr.quant.quantizers.base import Quantizer, StatedRange, require_symmetry
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("PAMS")
class PAMSQuantizer(Quantizer[Bounds]):
    """Parameterized max scale (PAMS, arXiv 2011.04212): clip to +-alpha, then whole multiples of alpha / (2**(bits-1) - 1).

    These are 2**bits - 1 values, 0 among them: one code fewer than there is room for. Negative codes stay unused after a ReLU,
    as published. The gradient of alpha is the rounding error over alpha inside, and -1 or 1 outside.
    The parameter `alpha`, float32, () or (C,), starts at the larger magnitude of the calibrated bounds; `EMAMax` finds that
    of the paper. For the weights of PAMS see `PAMSWeight`.

    Args:
        spec: bits and granularity; symmetric.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.

    Raises:
        QuantizationError: the specification is not symmetric.
    """

    takes = Bounds
    roles = ("activation",)

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, True, "PAMS")
        self._highest = spec.num_levels // 2 - 1
        self.alpha = nn.Parameter(torch.ones(self.bounds_shape))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x` and to alpha."""
        step = self.alpha / self._highest
        return fake_quantize_by_step(x, step, -self._highest, self._highest, self.spec.channel_axis)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`, counted from that of -alpha: uint8 from 0 to 2**bits - 2, in the shape of `x`."""
        self.require_calibrated()
        return quantize_by_step(x, self.alpha / self._highest, -self._highest, self._highest, self.spec.channel_axis)

    def affine_bounds(self, _weight: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """Return -alpha, and one step more than alpha: there lies the code that is never used."""
        return -self.alpha, self.alpha * (1 + 1 / self._highest)

    def stated_range(self, weight: Tensor | None = None, /) -> StatedRange:
        """Return the bounds, with alpha for the largest value."""
        return super().stated_range(weight)._replace(largest=self.alpha)

    def load_range(self, stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Take the largest magnitude for alpha."""
        magnitude = stated.in_shape(self.bounds_shape).magnitude
        self.load_calibration(Bounds(-magnitude, magnitude))
        return "alpha is the larger magnitude of both bounds"

    def parameter_units(self) -> dict[str, Tensor]:
        """Return the quantization step, alpha / (2**(bits-1) - 1)."""
        return {"alpha": self.alpha.detach() / self._highest}

    @torch.no_grad()
    def load_calibration(self, result: Bounds) -> None:
        """Take the larger magnitude of the bounds for alpha.

        Raises:
            QuantizationError: a bound is not finite, or the shape does not fit.
        """
        alpha = torch.maximum(result.lower_bound.abs(), result.upper_bound.abs())
        if alpha.shape != self.alpha.shape or not bool(alpha.isfinite().all()):
            raise QuantizationError(
                f"The bounds for the quantizer '{self.name}' cannot be used: they must be finite and of the shape "
                f"{tuple(self.alpha.shape)}, but have the shape {tuple(alpha.shape)}. Look at what was calibrated."
            )
        self.alpha.copy_(alpha.clamp_min(CONSTANT_MINIMUM_WIDTH))
        self.mark_calibrated()
