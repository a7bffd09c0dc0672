"""Uniform quantization by a step, as pure functions: the codes are whole multiples of it.

With lowest and highest code Q_n and Q_p the code of x is k = round(clip(x / s, Q_n, Q_p)) and stands for the value k * s (LSQ,
Esser et al. 2020, arXiv 1902.08153, section 2); 0 is always one of the values. Rounding is half to even. Steps have the
shape () or (C,) together with the axis of the C channels. The arithmetic is done in float32 or better.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr.quant.kernels.fused import rows_of
from basicsr.quant.ops.functional import MINIMAL_WIDTH, clip, into


def quantize_by_step(
    x: Tensor, step: Tensor, lowest: Tensor | int, highest: Tensor | int, channel_axis: int | None = None
) -> Tensor:
    """Return the codes of `x`, counted from 0: uint8 from 0 to highest - lowest, in the shape of `x`.

    Args:
        x: values of any shape.
        step: shape () or, with `channel_axis`, (C,). Steps below `MINIMAL_WIDTH` count as that.
        lowest: Q_n, a whole number or a tensor () with one; at most 0.
        highest: Q_p, of the same type as `lowest`; at most 255 above it.
        channel_axis: axis of `x` that the steps run along; None for one step.
    """
    with torch.no_grad():
        value, step = _in_common_type(x, step, channel_axis)
        codes = (value / step).clamp_(lowest, highest)  # type: ignore[arg-type]  # the stubs have no bounds of either kind
        return codes.round_().sub_(lowest).to(torch.uint8)


def fake_quantize_by_step(
    x: Tensor,
    step: Tensor,
    lowest: Tensor | int,
    highest: Tensor | int,
    channel_axis: int | None = None,
    *,
    temperature: float | None = None,
) -> Tensor:
    """Quantize and dequantize `x`; gradients reach the input and the step.

    With v = x / s, k the code and f' the slope that stands for that of the round, the gradients are, for an upstream gradient
    g, d/dx = g f'(v) inside Q_n <= v <= Q_p and 0 outside, d/ds = sum g (k - v f'(v)) inside and sum g k outside. Without
    `temperature` f' is 1 (straight-through, LSQ). With a temperature t, f is the soft staircase
    floor(v) + 1/2 + tanh(t r) / (2 tanh(t / 2)) with r = v - floor(v) - 1/2 (QuantSR, NeurIPS 2023): its slope is largest where
    the round jumps, and 1 on average. Nothing but the arguments is kept for the backward pass.

    Args:
        x: floating-point values of any shape.
        step: shape () or, with `channel_axis`, (C,). Steps below `MINIMAL_WIDTH` count as that, and keep their gradients.
        lowest: Q_n, a whole number or a tensor () with one; at most 0.
        highest: Q_p, of the same type as `lowest`.
        channel_axis: axis of `x` that the steps run along; None for one step.
        temperature: of the soft staircase, above 0; None for the straight-through gradient.

    Returns:
        At most highest - lowest + 1 distinct values (in each channel), in the shape and type of `x`.
    """
    return _FakeQuantizeByStep.apply(x, step, lowest, highest, channel_axis, temperature)


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """Return `quantized`, bit by bit, with the gradient of the identity to `x`, which has its shape and type."""
    return _StraightThrough.apply(x, quantized)


def scale_gradient(x: Tensor, factor: float | Tensor) -> Tensor:
    """Return `x` as it is; its gradient is multiplied by `factor`, a number or a tensor ()."""
    return _ScaleGradient.apply(x, factor)


def staircase_slope(position: Tensor, temperature: float) -> Tensor:
    """Return the slope of the soft staircase at v: t (1 - tanh(t r)**2) / (2 tanh(t / 2)), see `fake_quantize_by_step`."""
    rise = torch.tanh(temperature * (position - position.floor() - 0.5))
    return (1 - rise.square()) * (temperature / (2 * math.tanh(temperature / 2)))


class _FakeQuantizeByStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        lowest: Tensor | int,
        highest: Tensor | int,
        channel_axis: int | None,
        temperature: float | None,
    ) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.arguments = (lowest, highest, channel_axis, temperature)
        rows = rows_of(x, step, channel_axis)
        if rows is not None:
            return rows.values_by_step(step, float(lowest), float(highest))
        value, broadcast = _in_common_type(x, step, channel_axis)
        position = value / broadcast
        return clip(position, lowest, highest, out=position).round_().mul_(broadcast).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, step = ctx.saved_tensors
        lowest, highest, channel_axis, temperature = ctx.arguments
        rows = rows_of(x, step, channel_axis) if temperature is None else None
        if rows is not None:
            return *rows.gradients_by_step(grad, step, float(lowest), float(highest)), None, None, None, None
        value, broadcast = _in_common_type(x, step, channel_axis)
        position = value / broadcast
        clipped = clip(position, lowest, highest, out=torch.empty_like(position))
        slope = into(torch.eq, clipped, position, out=torch.empty_like(position))  # faster than by way of booleans
        if temperature is not None:
            slope.mul_(staircase_slope(position, temperature))
        grad_x = (grad * slope).to(x.dtype) if ctx.needs_input_grad[0] else None
        grad_step = None
        if ctx.needs_input_grad[1]:
            terms = clipped.round_().sub_(slope.mul_(position)).mul_(grad)
            grad_step = terms.sum_to_size(broadcast.shape).reshape(step.shape).to(step.dtype)
        return grad_x, grad_step, None, None, None, None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, _x: Tensor, quantized: Tensor) -> Tensor:
        return quantized.clone()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float | Tensor) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def _in_common_type(x: Tensor, step: Tensor, channel_axis: int | None) -> tuple[Tensor, Tensor]:
    """Return `x` and the step in the type to compute in; the step in a shape that broadcasts against `x`."""
    dtype = torch.promote_types(torch.promote_types(step.dtype, torch.float32), x.dtype)
    step = step.detach().to(dtype).clamp_min(MINIMAL_WIDTH)
    if channel_axis is not None:
        shape = [1] * x.dim()
        shape[channel_axis] = -1
        step = step.reshape(shape)  # 1, .., C, .., 1
    return x.to(dtype), step
