"""Quantization to the nearest of a few points in the scale of the tensor, as pure functions."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr.quant.ops.subset import staircase

_FEW = 32
"""Points for which a comparison with each threshold is faster than a search for each element."""


@torch.no_grad()
def quantize(x: Tensor, points: Tensor) -> Tensor:
    """Return the index of the point nearest to each element; halfway between two points, that of the lower one.

    Args:
        x: floating-point values of any shape.
        points: ascending, (K,), of which there are at most 256.

    Returns:
        uint8 codes from 0 to K - 1, in the shape of `x`.
    """
    if len(points) > _FEW:
        thresholds = (points[1:] + points[:-1]) / 2
        return torch.bucketize(x.float().contiguous(), thresholds, out_int32=True).to(torch.uint8)
    counts = torch.arange(len(points), dtype=points.dtype, device=x.device)
    return staircase(x.float(), points, counts).to(torch.uint8)


def fake_quantize(x: Tensor, points: Tensor) -> Tensor:
    """Return the point nearest to each element, with gradients to `x` and to the points.

    A point gets the sum of the gradients of all that is rounded to it: the derivative of the output with the codes as they are. The
    gradient of `x` passes straight through from the lowest point to the highest one, and is 0 outside.

    Args:
        x: floating-point values of any shape.
        points: float32 (K,), in any order, of which there are at most 256.

    Returns:
        At most K distinct values, in the shape and the type of `x`.
    """
    return _FakeQuantize.apply(x, points.sort().values)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, points: Tensor) -> Tensor:
        codes = quantize(x, points)
        ctx.save_for_backward(x, points, codes)
        return points.to(x.dtype)[codes.int()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, points, codes = ctx.saved_tensors
        inside = (x >= points[0]) & (x <= points[-1])
        of_points = torch.zeros_like(points).index_add_(0, codes.flatten().int(), grad.flatten().to(points.dtype))
        return grad * inside, of_points
