"""Scales that even out the channels of a layer's input before it is quantized, while the weight makes up for them."""

import torch
from torch import Tensor, nn

from basicsr.quant.quantizers.base import Channels


class InputScale(nn.Module):
    """Divides each channel of an input by a factor of its own, whose reciprocal the weight carries.

    A network in full precision computes the same with any factors (SmoothQuant, arXiv 2211.10438, section 4). A quantizer
    with one grid for the tensor does not: with factors that are large where the channel is, small channels are rounded as finely as large
    ones. The codes and the products of the layer are those of a tensor with one grid; dividing costs nothing where
    the input is multiplied by 1 / step anyway.

    Args:
        channels: number and axis of the channels.

    Attributes:
        factors: float32, (C,), above 0; all 1 before calibration.
    """

    factors: Tensor

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.axis = channels.axis
        self.register_buffer("factors", torch.ones(channels.number))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with its channels divided, in its shape and type."""
        shape = [1] * x.dim()
        shape[self.axis] = -1
        return x / self.factors.view(shape).to(x.dtype)
