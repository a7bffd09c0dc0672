"""Quantization to the nearest of a few points after normalising each channel of each sample, as pure functions.

With a sample's channel x, DFSQ (arXiv 2305.05888) normalises (x - mean(x)) / (max|x - mean(x)| + 1e-8), or after a ReLU
x / (max|x| + 1e-8), takes the nearest point and undoes the normalisation. The points lie in -1..1 and belong to a channel; mean
and maximum are those of the sample, so they are computed anew for every tensor.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr.quant.spec import QuantizationError

EPSILON = 1e-8
_BLOCK = 2**17  # elements


def sample_rows(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return `x` as (N, C, elements), N samples along axis 0; (N, 1, elements) without channels. A view where possible.

    Raises:
        QuantizationError: there is no axis of samples beside that of the channels.
    """
    if x.ndim == 0 or (channel_axis is not None and channel_axis % x.ndim == 0):
        raise QuantizationError(
            f"A tensor of the shape {tuple(x.shape)} with the channel axis {channel_axis} has no samples: they lie along "
            "axis 0, the channels along another."
        )
    if channel_axis is None:
        return x.reshape(x.shape[0], 1, -1)
    moved = x.movedim(channel_axis, 1)
    return moved.reshape(*moved.shape[:2], -1)  # N, C, all the rest


def normalize(rows: Tensor, post_relu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each row: into -1..1, with mean 0 unless `post_relu`. A constant row stays finite.

    Args:
        rows: floating-point (N, C, elements).
        post_relu: truth value, shape (): leave the mean where it is.

    Returns:
        The rows in a new tensor, and what was subtracted, then divided by, (N, C, 1) each.
    """
    offset = rows.mean(dim=-1, keepdim=True).masked_fill(post_relu, 0.0)
    lowest, highest = rows.amin(dim=-1, keepdim=True), rows.amax(dim=-1, keepdim=True)
    scale = torch.maximum(offset - lowest, highest - offset) + EPSILON
    return rows.sub(offset).div_(scale), offset, scale


def quantize(x: Tensor, points: Tensor, post_relu: Tensor, channel_axis: int | None = None) -> Tensor:
    """Return the index of the point nearest to each normalised element; halfway between two points, that of the lower one.

    Args:
        x: values of any shape, with the samples along axis 0.
        points: ascending, shape (K,) or, with `channel_axis`, (C, K); K is at most 256.
        post_relu: truth value, shape (), see `normalize`.
        channel_axis: axis of `x` that the channels run along; None for one set of points and one normalisation of a sample.

    Returns:
        uint8 codes from 0 to K - 1 in the shape of `x`.
    """
    with torch.no_grad():
        counts = torch.arange(points.shape[-1], device=x.device).expand_as(points)
        return _quantize_blocks(x, points, counts, post_relu, channel_axis, in_codes=True)


def fake_quantize(x: Tensor, points: Tensor, post_relu: Tensor, channel_axis: int | None = None) -> Tensor:
    """Return what the codes of `x` stand for in the scale of each sample, with a straight-through gradient to `x`.

    The gradient is passed on from the lowest to the highest point and is 0 outside; mean and maximum count as constants. Nothing
    but the arguments is kept for the backward pass. Second derivatives are not available.

    Args:
        x: as in `quantize`, floating-point.
        points: as in `quantize`.
        post_relu: as in `quantize`.
        channel_axis: as in `quantize`.

    Returns:
        At most K distinct values in each channel of each sample, in the shape and type of `x`.
    """
    return _FakeQuantize.apply(x, points, post_relu, channel_axis)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, points: Tensor, post_relu: Tensor, channel_axis: int | None) -> Tensor:
        ctx.save_for_backward(x, points, post_relu)
        ctx.channel_axis = channel_axis
        return _quantize_blocks(x, points, points, post_relu, channel_axis, in_codes=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, points, post_relu = ctx.saved_tensors
        rows = _float_rows(x, ctx.channel_axis)
        normalized, _, _ = normalize(rows, post_relu)
        levels = _levels(points, rows)
        inside = normalized.clamp(levels[..., 0], levels[..., -1]).eq_(normalized)
        return _from_rows(inside, x, ctx.channel_axis).to(grad.dtype) * grad, None, None, None


def _float_rows(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return the rows of `x` in float32 or better, so that half precision gets the codes of its float32 values."""
    rows = sample_rows(x, channel_axis).to(torch.promote_types(x.dtype, torch.float32))
    return rows.contiguous()  # with the elements of a channel apart, every comparison would take several times as long


def _from_rows(rows: Tensor, like: Tensor, channel_axis: int | None) -> Tensor:
    """Undo `sample_rows` for a result about the tensor `like`."""
    if channel_axis is None:
        return rows.view(like.shape)
    return rows.view(like.movedim(channel_axis, 1).shape).movedim(1, channel_axis)


def _levels(points: Tensor, rows: Tensor) -> Tensor:
    """Return what is given for each point, (K,) or (C, K), as (C, 1, K) in the type of `rows`."""
    return points.to(rows.dtype).reshape(rows.shape[1], 1, -1)


def _quantize_blocks(
    x: Tensor, points: Tensor, heights: Tensor, post_relu: Tensor, channel_axis: int | None, *, in_codes: bool
) -> Tensor:
    """Return the height that goes with the nearest point of each element: codes as they are, values in the scale of `x`.

    A processor works on blocks whose intermediate results stay in its cache, which is twice as fast for large images.
    """
    rows = _float_rows(x, channel_axis)
    levels, heights = _levels(points, rows), _levels(heights, rows)
    result = torch.empty_like(rows, dtype=torch.uint8 if in_codes else x.dtype)
    for samples, channels in _blocks(rows):
        normalized, offset, scale = normalize(rows[samples, channels], post_relu)
        found = staircase(normalized, levels[channels], heights[channels])
        result[samples, channels] = found if in_codes else found.mul_(scale).add_(offset)
    return _from_rows(result, x, channel_axis)


def _blocks(rows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield parts of the first two axes that hold some `_BLOCK` elements each; on an accelerator, everything at once."""
    num_samples, num_channels, elements = rows.shape
    block = _BLOCK if rows.is_cpu else rows.numel()
    channels = min(num_channels, max(1, block // elements))
    samples = max(1, block // (channels * elements))
    for first in range(0, num_samples, samples):
        for channel in range(0, num_channels, channels):
            yield slice(first, first + samples), slice(channel, channel + channels)


def staircase(rows: Tensor, levels: Tensor, heights: Tensor) -> Tensor:
    """Return, in a new tensor, for each element the height that goes with the nearest level.

    A comparison with each of the few midpoints, written as ones and zeros and added up, is several times as fast as a binary
    search for each element.

    Args:
        rows: floating-point, such as (N, C, elements).
        levels: ascending along the last axis, such as (C, 1, K), whose other axes go with `rows`; (K,) for the same levels everywhere.
        heights: as `levels`.
    """
    midpoints = (levels[..., 1:] + levels[..., :-1]) / 2
    steps = heights.diff(dim=-1)
    result = torch.empty_like(rows).copy_(heights[..., 0])
    above = torch.empty_like(rows)
    for midpoint, step in zip(midpoints.unbind(-1), steps.unbind(-1), strict=True):
        result.addcmul_(torch.gt(rows, midpoint, out=above), step)
    return result
