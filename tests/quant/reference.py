"""The quantizer in its most literal form, as an oracle: plain operations with the usual gradients, one after the other."""

import torch
from torch import Tensor


def plain_fake_quantize(x: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int) -> Tensor:
    """Clip, scale, round straight-through, scale back. Bounds broadcast against `x`; no element may lie on a bound."""
    inside = torch.where(x < lower_bound, lower_bound, torch.where(x > upper_bound, upper_bound, x))
    step = (upper_bound - lower_bound) / (2**bits - 1)
    position = (inside - lower_bound) / step
    code = position + (position.round() - position).detach()
    return code * step + lower_bound


def frozen_fake_quantize(x: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int, residual: Tensor) -> Tensor:
    """The function whose derivative the straight-through estimator is: rounding adds a constant `residual` to each code.

    With the residual of the point itself, `rounding_residual`, it has the value of the quantizer there; unlike the quantizer
    it is smooth around the point, so that finite differences can check the gradients.
    """
    inside = torch.where(x < lower_bound, lower_bound, torch.where(x > upper_bound, upper_bound, x))
    return inside + (upper_bound - lower_bound) / (2**bits - 1) * residual


def rounding_residual(x: Tensor, lower_bound: Tensor, upper_bound: Tensor, bits: int) -> Tensor:
    """What rounding adds to each code, between -0.5 and 0.5."""
    with torch.no_grad():
        position = (
            (torch.clamp(x, lower_bound, upper_bound) - lower_bound) / (upper_bound - lower_bound) * (2**bits - 1)
        )
        return position.round() - position
