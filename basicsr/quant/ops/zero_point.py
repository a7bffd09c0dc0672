"""Bounds whose grid contains 0."""

from torch import Tensor

from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.ops.step_functional import straight_through


def with_integer_zero_point(lower: Tensor, upper: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Move both bounds by less than a step so that they become whole multiples of it: z s and (z + N) s with z = round(lower / s).

    Quantized between them, the values of x in lower..upper are round(x / s) s, as where an integer zero point is added to the
    codes. There are N + 1 = 2**bits of them; rounding both ends apart, as the released code of DDTB does, can give one more.
    Gradients take the round for the identity (straight-through), also for bounds that have crossed.

    Args:
        lower: lower bounds, of any shape.
        upper: upper bounds, in the shape of `lower`.
        bits: 2 to 8.
    """
    width = upper - lower
    width = straight_through(width, width.detach().clamp_min(MINIMAL_WIDTH))
    step = width / (2**bits - 1)
    position = (lower / step).detach()
    moved = lower + (position.round() - position) * step
    return moved, moved + width
