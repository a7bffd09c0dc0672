"""A change of a normalisation's output, channel by channel, that the layers behind it take back (RepQ-ViT, arXiv 2212.08254, section 3.2).

LayerNorm ends with a factor and a summand for each channel, and a linear layer begins with a product. Between the two any channel c may be
divided by a factor r and moved by an offset o: x_c becomes (x_c - o_c) / r_c. The norm computes that with weight / r and (bias - o) / r,
the layer takes it back with the columns W_c r_c and the bias b + W o. What both compute together in full precision stays the same.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from basicsr.quant.modules.base import QModule


class ChannelChange(NamedTuple):
    """What channels are divided by after `offsets` were taken away; both float64, (C,), the factors above 0."""

    factors: Tensor
    offsets: Tensor


def common_range(lower: Tensor, upper: Tensor, smallest_share: float) -> ChannelChange:
    """Return the change that gives all channels one range, whose step and zero point are the means of those of the channels.

    With the width w_c = upper_c - lower_c and z_c = -lower_c / w_c, which is the zero point in units of the range, the
    common range is from -mean(z) mean(w) to (1 - mean(z)) mean(w).

    Args:
        lower: bounds of the channels, (C,).
        upper: as `lower`, and larger.
        smallest_share: of the largest width; narrower channels count as this wide, so that what hardly varies is not blown up.
    """
    lower, width = lower.double(), (upper - lower).double()
    width = width.clamp_min(float(width.max()) * smallest_share)
    common_width = width.mean()
    common_lower = (lower / width).mean() * common_width
    factors = width / common_width
    return ChannelChange(factors, lower - factors * common_lower)


@torch.no_grad()
def fold_into(norm: nn.LayerNorm, layers: Iterable[QModule], change: ChannelChange) -> None:
    """Let a norm return changed channels, and layers that read nothing else take the change back, all in place.

    Args:
        norm: normalises the last axis, with weight and bias.
        layers: linear layers with a bias, whose inputs are not scaled.
        change: of the norm's channels.
    """
    factors, offsets = (tensor.to(norm.weight.device) for tensor in change)
    norm.bias.copy_((norm.bias.double() - offsets) / factors)
    norm.weight.copy_(norm.weight.double() / factors)
    for layer in layers:
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        bias.add_(weight.double() @ offsets)
        weight.copy_(weight.double() * factors)
