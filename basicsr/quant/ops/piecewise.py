"""Quantization by a grid whose steps are finer between two breakpoints than outside of them, as pure functions.

Between the lower bound l and the upper bound u lie the breakpoints -t and t. Each of the three regions l..-t, -t..t and t..u has a
number of equal steps of its own: n_0, n_1 and n_2. A region without steps does not exist, and its neighbour reaches to the bound. With
p_r = clip((x - start_r) / s_r, 0, n_r), which is 0 before a region and n_r behind it, the code of x is the sum of the three round(p_r),
and stands for l + sum_r s_r round(p_r). Rounding is half to even.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from basicsr.quant.ops.functional import MINIMAL_WIDTH


class Region(NamedTuple):
    """One of the three parts of the grid, as tensors of the shape (): where it starts, its step, and how many steps it has."""

    start: Tensor
    step: Tensor
    steps: Tensor


def regions_of(lower_bound: Tensor, upper_bound: Tensor, breakpoint_: Tensor, steps: Tensor) -> tuple[Region, ...]:
    """Return the regions, from the lowest one; bounds and breakpoints that training drove past each other have no width.

    Args:
        lower_bound: shape ().
        upper_bound: shape ().
        breakpoint_: shape (), above 0.
        steps: (3,), of the regions in ascending order.
    """
    lower, upper, middle = (bound.float() for bound in (lower_bound, upper_bound, breakpoint_))
    upper = torch.maximum(upper, lower)
    below, _, above = (steps > 0).unbind()
    left = torch.where(below, torch.minimum(torch.maximum(lower, -middle), upper), lower)
    right = torch.where(above, torch.minimum(torch.maximum(middle, left), upper), upper)
    ends = (lower, left, right, upper)
    return tuple(
        Region(start, (end - start).clamp_min(MINIMAL_WIDTH) / number.clamp_min(1), number)
        for start, end, number in zip(ends, ends[1:], steps.float().unbind(), strict=False)
    )


def fake_quantize(x: Tensor, lower_bound: Tensor, upper_bound: Tensor, breakpoint_: Tensor, steps: Tensor) -> Tensor:
    """Return the values that the codes of `x` stand for, with gradients to `x`, to the bounds and to the breakpoint.

    The backward pass takes each round for the identity (straight-through): a bound gets what is clipped to it, and every region's step
    the error of rounding in it.

    Args:
        x: floating-point values of any shape.
        lower_bound, upper_bound, breakpoint_, steps: see `regions_of`.

    Returns:
        At most n_0 + n_1 + n_2 + 1 distinct values, in the shape and type of `x`.
    """
    regions = regions_of(lower_bound, upper_bound, breakpoint_, steps)
    values = regions[0].start
    for region in regions:
        position = _position(x, region)
        # a zero that carries the gradients of the position
        values = values + (position.detach().round() + (position - position.detach())) * region.step
    return values.to(x.dtype)


@torch.no_grad()
def quantize(x: Tensor, lower_bound: Tensor, upper_bound: Tensor, breakpoint_: Tensor, steps: Tensor) -> Tensor:
    """Return the codes of `x`: uint8 from 0 to n_0 + n_1 + n_2, in the shape of `x`; arguments as of `fake_quantize`."""
    regions = regions_of(lower_bound, upper_bound, breakpoint_, steps)
    rounded = [_position(x, region).round_() for region in regions]
    return torch.stack(rounded).sum(dim=0).to(torch.uint8)


def points_of(lower_bound: Tensor, upper_bound: Tensor, breakpoint_: Tensor, steps: Tensor) -> Tensor:
    """Return what the codes stand for, ascending, (n_0 + n_1 + n_2 + 1,); arguments as of `fake_quantize`."""
    lowest, *rest = regions_of(lower_bound, upper_bound, breakpoint_, steps)
    sizes = [region.step.expand(int(region.steps)) for region in (lowest, *rest)]
    return lowest.start + torch.cat([lowest.step.new_zeros(1), *sizes]).cumsum(dim=0)


def _position(x: Tensor, region: Region) -> Tensor:
    """Return where values lie in a region, in steps from its start: in float32 or better, 0 before it and all its steps behind it."""
    return ((x - region.start) / region.step).clamp_min(0).minimum(region.steps)
