"""Uniform quantizer with a learned step."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds, MeanMagnitude
from basicsr.quant.calibrators.base import CONSTANT_MINIMUM_WIDTH
from basicsr.quant.ops.step_functional import fake_quantize_by_step, quantize_by_step, scale_gradient
from basicsr.quant.quantizers.base import Quantizer, StatedRange
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("LSQ")
class LSQQuantizer(Quantizer[Bounds]):
    """Learned step size (LSQ, Esser et al. 2020, arXiv 1902.08153); see `step_functional` for forward and gradients.

    The codes are -2**(bits-1) .. 2**(bits-1) - 1 for data with negative values, and 0 .. 2**bits - 1 for data without, such as
    the output of a ReLU; calibration tells which. A symmetric specification asks for the former whatever the data. The
    parameter `step`, float32, () or (C,), starts at 2 mean|x| / sqrt(Q_p) with the calibrator `MeanMagnitude`, as in the paper;
    with one that finds bounds, such as `DOBI`, at the smallest step that reaches both. The buffer `lowest_code` is Q_n.

    Args:
        spec: bits, symmetry and granularity.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        gradient_scale: multiply the gradient of the step by 1 / sqrt(n Q_p), with n the number of elements that share it
            (section 2.2 of the paper), samples of the batch included.
    """

    takes = Bounds
    only_gradients: ClassVar[tuple[str, ...]] = ("gradient_scale",)
    lowest_code: Tensor

    def __init__(self, spec: QuantSpec, num_channels: int | None = None, /, *, gradient_scale: bool = True) -> None:
        super().__init__(spec, num_channels)
        self._gradient_scale = gradient_scale
        self.step = nn.Parameter(torch.ones(self.bounds_shape))
        self.register_buffer("lowest_code", torch.tensor(-float(spec.num_levels // 2)))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x` and to the step."""
        step: Tensor = self.step
        highest = self.lowest_code + self.spec.max_code
        if self._gradient_scale:
            step = scale_gradient(step, (x.numel() / step.numel() * highest).rsqrt())
        return self._fake_quantize(x, step, highest)

    def _fake_quantize(self, x: Tensor, step: Tensor, highest: Tensor) -> Tensor:
        return fake_quantize_by_step(x, step, self.lowest_code, highest, self.spec.channel_axis)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`, counted from the lowest: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        highest = self.lowest_code + self.spec.max_code
        return quantize_by_step(x, self.step, self.lowest_code, highest, self.spec.channel_axis)

    def affine_bounds(self, _weight: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest code times the step."""
        return self.lowest_code * self.step, (self.lowest_code + self.spec.max_code) * self.step

    @torch.no_grad()
    def parameter_units(self) -> dict[str, Tensor]:
        """Return the step over the largest magnitude of a code, max(-Q_n, Q_p)."""
        highest = self.lowest_code + self.spec.max_code
        return {"step": self.step / torch.maximum(-self.lowest_code, highest)}

    @torch.no_grad()
    def load_calibration(self, result: Bounds) -> None:
        """Set the codes by the sign of the lower bound and the step by the calibration; data of zeros get a step above 0.

        Raises:
            QuantizationError: a mean magnitude or a bound is not finite, or its shape does not fit.
        """
        signed = self.spec.symmetric or bool((result.lower_bound < 0).any())
        lowest = -(self.spec.num_levels // 2) if signed else 0
        step = _first_step(result, lowest, self.spec.max_code + lowest)
        if step.shape != self.step.shape or not bool(step.isfinite().all()):
            raise QuantizationError(
                f"The calibration of the quantizer '{self.name}' cannot be used: it must be finite and of the shape "
                f"{tuple(self.step.shape)}, but has the shape {tuple(step.shape)}. Look at what was calibrated."
            )
        self.lowest_code.fill_(lowest)
        self.step.copy_(step.clamp_min(CONSTANT_MINIMUM_WIDTH))
        self.mark_calibrated()

    def load_range(self, stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Take the smallest step that reaches both bounds.

        A lower bound that is below 0 by less than half a step of the codes 0 .. 2**bits - 1 counts as 0: what lies there would be
        rounded to 0 anyway, and codes with a sign would leave half of them unused.
        """
        lower, _, largest = stated.in_shape(self.bounds_shape)
        nearly_zero = bool((-lower < largest / self.spec.max_code / 2).all())
        if nearly_zero and not self.spec.symmetric:
            lower = lower.clamp_min(0)
        self.load_calibration(Bounds(lower, largest))
        return "the smallest step that reaches both bounds"


def _first_step(result: Bounds, lowest: int, highest: int) -> Tensor:
    if isinstance(result, MeanMagnitude):
        return 2 * result.mean_magnitude / highest**0.5
    step = result.upper_bound / highest
    return torch.maximum(step, result.lower_bound / lowest) if lowest else step
