"""Exact sums of products of codes, in int32: what the integer twins of layers are made of.

With activations x = c_x s_x + l_x and weights w = c_w s_w + l_w (codes c, steps s, lower bounds l) a sum over K products is

    sum x w = s_x s_w sum c_x c_w + s_x l_w sum c_x + l_x s_w sum c_w + K l_x l_w,

so that three integer sums give it without any zero point. Zeros that a convolution pads with are no code of the activation: they
count in none of the sums, which near the border therefore run over fewer taps. So no bound has to move.
"""

import torch
from torch import Tensor

from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError


class Grid:
    """The values that the codes of one quantizer stand for: code * step + lower, in float64.

    Args:
        quantizer: a calibrated quantizer with a static uniform grid.
        weight: what it quantizes, if that is a weight.
    """

    def __init__(self, quantizer: Quantizer, weight: Tensor | None = None) -> None:
        lower, upper = (bound.detach().double() for bound in quantizer.affine_bounds(weight))
        self.lower, self.step = lower, (upper - lower) / quantizer.spec.max_code


class ActivationCodes:
    """Turns activations into int32 codes on a per-tensor grid."""

    def __init__(self, quantizer: Quantizer) -> None:
        if quantizer.spec.channel_axis is not None:
            raise QuantizationError(
                f"The quantizer '{quantizer.name}' is per channel; integer layers need per-tensor activations."
            )
        self._quantizer = quantizer
        self.grid = Grid(quantizer)

    def __call__(self, x: Tensor) -> Tensor:
        return self._quantizer.codes(x).to(torch.int32)


class WeightCodes:
    """The int32 codes of a weight (rows first), their sums over each row, and their grid."""

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        self.codes = quantizer.codes(weight.detach()).to(torch.int32)
        self.grid = Grid(quantizer, weight.detach())


def affine_sum(x: Grid, w: Grid, products: Tensor, x_sums: Tensor, w_sums: Tensor, terms: Tensor | int) -> Tensor:
    """Return sum x w as float64 from the integer sums of the head of this file; all broadcast against `products`."""
    return (
        x.step * w.step * products + x.step * w.lower * x_sums + x.lower * w.step * w_sums + terms * x.lower * w.lower
    )
