"""Uniform quantization between two bounds, as pure functions.

With N = 2**bits - 1 and the step s = (upper - lower) / N, the code of x is round((clip(x, lower, upper) - lower) / s), a
whole number from 0 to N, and stands for the value code * s + lower (2DQuant, arXiv 2406.06649). Rounding is half to even.

Bounds have the shape () or (1,), or (C,) together with the axis of the C channels. Whatever the type of the input, the
arithmetic is done in float32 or better, so that half-precision tensors get the codes of their float32 values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr.quant.kernels.fused import rows_of

MINIMAL_WIDTH = 1e-12
"""Training may drive the bounds together or past each other. The quantizer then works as if the upper bound were the
lower one and this apart, so that a step is never zero and nothing becomes NaN, while both bounds keep their gradients
and can move apart again. Written as tensor arithmetic: no value is read back from the device."""


def quantize(x: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int, channel_axis: int | None = None) -> Tensor:
    """Return the integer codes of `x`.

    Args:
        x: values of any shape.
        lower_bound: shape () or, with `channel_axis`, (C,).
        upper_bound: as `lower_bound`.
        bits: 2 to 8.
        channel_axis: axis of `x` that the bounds run along; None for one pair of bounds.

    Returns:
        uint8 codes from 0 to 2**bits - 1 in the shape of `x`.
    """
    with torch.no_grad():
        lower, _, step = _range(x, lower_bound, upper_bound, bits, channel_axis)
        return _codes(x, lower, step, bits).to(torch.uint8)


def dequantize(
    codes: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int, channel_axis: int | None = None
) -> Tensor:
    """Return the values that `codes` stand for, in the type of the bounds (float32 or better).

    Args:
        codes: whole numbers from 0 to 2**bits - 1, of any shape.
        lower_bound: shape () or, with `channel_axis`, (C,).
        upper_bound: as `lower_bound`.
        bits: 2 to 8.
        channel_axis: axis of `codes` that the bounds run along.
    """
    with torch.no_grad():
        lower, _, step = _range(codes, lower_bound, upper_bound, bits, channel_axis)
        return codes.to(lower.dtype, copy=True).mul_(step).add_(lower)


def fake_quantize(
    x: Tensor,
    lower_bound: Tensor,
    upper_bound: Tensor,
    bits: int,
    channel_axis: int | None = None,
    *,
    exact_zeros: bool = False,
    threshold_window: float = 1.0,
) -> Tensor:
    """Quantize and dequantize `x`; gradients reach the input and both bounds.

    The backward pass takes the round for the identity (straight-through). With c = clip(x), r = round((c - lower) / s)
    and e = (r - (c - lower) / s) / N the gradients are, for an upstream gradient g,
    d/dx = g inside the bounds and 0 outside, d/dupper = sum g (1[x >= upper] + e), d/dlower = sum g (1[x <= lower] - e).
    An element exactly on a bound gives its gradient to both the input and that bound.

    Straight-through gradients of the bounds are means over values that lie anywhere between two grid points. They are wrong for
    many equal values, such as the zeros that a ReLU makes: all of them stand in one place and move with their grid point,
    lower + code * s, whose gradients are 1 - code / N and code / N. `exact_zeros` gives elements that are 0 these instead.

    The same holds for values that crowd near one grid point, as small probabilities do. When the bounds move, grid points move,
    and elements cross the thresholds half-way between them. Straight-through gradients take every element of a cell for one
    at its threshold: a good estimate where the density hardly varies over a step. `threshold_window` = h < 1 takes only those
    within h / 2 steps of a threshold, each 1 / h times; all others move with their grid point. With w = 1 / h for the former and
    0 for the latter and for clipped elements, and p = (x - lower) / s, d/dupper = sum g (code - w p) / N and
    d/dlower = sum g (1 - w) - d/dupper; w = 1 inside the bounds gives the straight-through ones back.

    Nothing but the arguments is kept for the backward pass. Second derivatives are not available.

    Args:
        x: floating-point values of any shape.
        lower_bound: shape () or, with `channel_axis`, (C,). Bounds that meet or cross are kept `MINIMAL_WIDTH` apart.
        upper_bound: as `lower_bound`.
        bits: 2 to 8.
        channel_axis: axis of `x` that the bounds run along; None for one pair of bounds.
        exact_zeros: give the bounds the exact gradient of elements that are 0.
        threshold_window: above 0 and at most 1, in steps; smaller windows have less bias and more variance.

    Returns:
        At most 2**bits distinct values (in each channel), in the shape and type of `x`.
    """
    return _FakeQuantize.apply(x, lower_bound, upper_bound, bits, channel_axis, exact_zeros, threshold_window)


def grid_positions(
    x: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int, channel_axis: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where values lie on the grid: (x - lower) / s, neither rounded nor clipped, for quantizers that round otherwise.

    Args:
        x: floating-point values of any shape.
        lower_bound: shape () or, with `channel_axis`, (C,).
        upper_bound: as `lower_bound`.
        bits: 2 to 8.
        channel_axis: axis of `x` that the bounds run along.

    Returns:
        The positions in the shape of `x`, and the lower bound and the step in shapes that broadcast against it, so that the
        value of a code is code * step + lower; all differentiable, float32 or better.
    """
    lower, _, step = _range(x, lower_bound, upper_bound, bits, channel_axis)
    return (x.to(lower.dtype) - lower) / step, lower, step


def clip(x: Tensor, lowest: Tensor | float, highest: Tensor | float, out: Tensor) -> Tensor:
    """Return `x`, clipped, in `out`, see `into`: in two steps, for a clamp between two tensors is not vectorised."""
    return into(torch.clamp, into(torch.clamp, x, min=lowest, out=out), max=highest, out=out)


def into(operation: Callable[..., Tensor], *arguments: Any, out: Tensor, **named: Any) -> Tensor:
    """Return the result of an operation in the memory of `out`; a compiler, which lays out memory itself, gets a new tensor."""
    if torch.compiler.is_compiling():  # it takes no `out` in the layout channels_last
        return operation(*arguments, **named).to(out.dtype)
    return operation(*arguments, out=out, **named)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        lower_bound: Tensor,
        upper_bound: Tensor,
        bits: int,
        channel_axis: int | None,
        exact_zeros: bool,
        threshold_window: float,
    ) -> Tensor:
        ctx.save_for_backward(x, lower_bound, upper_bound)
        ctx.bits, ctx.channel_axis, ctx.exact_zeros, ctx.window = bits, channel_axis, exact_zeros, threshold_window
        rows = rows_of(x, lower_bound, channel_axis)
        if rows is not None:
            return rows.values(lower_bound, upper_bound, 2**bits - 1)
        lower, _, step = _range(x, lower_bound, upper_bound, bits, channel_axis)
        return _codes(x, lower, step, bits).mul_(step).add_(lower).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, lower_bound, upper_bound = ctx.saved_tensors
        needs_x, needs_lower, needs_upper = ctx.needs_input_grad[:3]
        rows = rows_of(x, lower_bound, ctx.channel_axis)
        if rows is not None:
            of_rows = rows.gradients(
                grad, lower_bound, upper_bound, 2**ctx.bits - 1, exact_zeros=ctx.exact_zeros, window=ctx.window
            )
            return *of_rows, None, None, None, None
        lower, upper, step = _range(x, lower_bound, upper_bound, ctx.bits, ctx.channel_axis)
        value, upstream = x.to(lower.dtype), grad.to(lower.dtype)

        grad_x = grad_lower = grad_upper = None
        # two tensors hold nearly all that follows; comparisons write ones and zeros into them: a third of the time of masks of booleans
        terms, residual = torch.empty_like(value), torch.empty_like(value)
        if needs_lower or needs_upper:
            terms = into(torch.sub, value, lower, out=terms).div_(step).clamp_(0, 2**ctx.bits - 1)
            residual = into(torch.round, terms, out=residual).sub_(terms)
            if ctx.window < 1:
                estimate = _from_window(value, upstream, lower, terms, residual, ctx)
            else:
                estimate = _straight_through(value, upstream, lower, upper, terms, residual, ctx)
            grad_lower, grad_upper = (total.reshape(lower_bound.shape).to(lower_bound.dtype) for total in estimate)
        if needs_x:
            grad_x = (
                into(torch.eq, clip(value, lower, upper, out=terms), value, out=residual).mul_(upstream).to(grad.dtype)
            )
        return grad_x, grad_lower, grad_upper, None, None, None, None


def _straight_through(
    value: Tensor, upstream: Tensor, lower: Tensor, upper: Tensor, terms: Tensor, residual: Tensor, ctx: Any
) -> tuple[Tensor, Tensor]:
    """Return the straight-through gradients of the bounds, in their shape; `residual` is code less position, `terms` is memory."""
    share = residual.mul_(upstream).sum_to_size(lower.shape) / (2**ctx.bits - 1)
    grad_lower = into(torch.le, value, lower, out=terms).mul_(upstream).sum_to_size(lower.shape) - share
    grad_upper = into(torch.ge, value, upper, out=terms).mul_(upstream).sum_to_size(lower.shape) + share
    if not ctx.exact_zeros:
        return grad_lower, grad_upper
    # 0 at the share p of the range has the code p N + e N: exact gradients are the straight-through ones and p times the sum
    # over all zeros for the upper bound, 1 - p times for the lower one; on a bound and outside both are the same
    inside = (lower < 0) & (upper > 0)
    place = -lower / torch.where(inside, upper - lower, 1)
    zeros = into(torch.eq, value, 0, out=terms).mul_(upstream).sum_to_size(lower.shape) * inside
    return grad_lower + (1 - place) * zeros, grad_upper + place * zeros


def _from_window(
    value: Tensor, upstream: Tensor, lower: Tensor, position: Tensor, residual: Tensor, ctx: Any
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the bounds from elements near thresholds and codes, see `fake_quantize`, in the shape of the bounds.

    `position` is clipped, `residual` code less position, from -1/2 to 1/2 and 0 for elements outside; both are overwritten.
    """
    crossing = residual.abs()
    crossing = into(torch.ge, crossing, 0.5 - ctx.window / 2, out=crossing).div_(ctx.window)
    if ctx.exact_zeros:
        crossing.mul_(value != 0)
    codes = residual.add_(position)
    moved = codes.addcmul_(position, crossing, value=-1).mul_(upstream)
    grad_upper = moved.sum_to_size(lower.shape) / (2**ctx.bits - 1)
    return crossing.neg_().add_(1).mul_(upstream).sum_to_size(lower.shape) - grad_upper, grad_upper


def _range(
    x: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int, channel_axis: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return lower bound, upper bound and step, in the type to compute in, in a shape that broadcasts against `x`."""
    dtype = torch.promote_types(lower_bound.dtype, torch.float32)
    if x.is_floating_point():
        dtype = torch.promote_types(dtype, x.dtype)
    lower, upper = lower_bound.to(dtype), upper_bound.to(dtype)
    if channel_axis is not None:
        shape = [1] * x.dim()
        shape[channel_axis] = -1
        lower, upper = lower.reshape(shape), upper.reshape(shape)  # 1, .., C, .., 1
    upper = torch.maximum(upper, lower)
    return lower, upper, (upper - lower).clamp_min_(MINIMAL_WIDTH).div_(2**bits - 1)


def _codes(x: Tensor, lower: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return the codes as floating-point numbers, in a new tensor that the caller may change in place."""
    return torch.sub(x.to(lower.dtype), lower).div_(step).round_().clamp_(0, 2**bits - 1)
