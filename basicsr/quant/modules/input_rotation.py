"""A rotation that spreads each channel of a layer's input over all channels before it is quantized, while the weight is rotated alike."""

import torch
from torch import Tensor, nn

from basicsr.quant.modules.cost import Cost
from basicsr.quant.spec import FULL_PRECISION_BITS


class InputRotation(nn.Module):
    """Continues the last axis by zeros to P channels, a power of two, and multiplies it by the Hadamard matrix over sqrt(P).

    The rows of that matrix are orthogonal and have length 1: a product of a rotated input and a rotated weight is that of both as
    they were (CompSRT, arXiv 2601.21069). Each rotated channel is a sum of all channels with signs, divided by sqrt(P), so that no channel
    alone decides the range of the tensor.

    It is one product of matrices: for each position channels * P multiply-adds in floating point. The matrix follows from the number of
    channels, and is no part of the state dict.

    Args:
        channels: number of channels of the input, 1 or more.
        device: where the matrix lives.
    """

    matrix: Tensor

    def __init__(self, channels: int, device: torch.device | None = None) -> None:
        super().__init__()
        padded = padded_channels(channels)
        matrix = hadamard_matrix(padded)[:channels] / padded**0.5  # zeros need no rows: channels, P
        self.register_buffer("matrix", matrix.float().to(device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., channels) as (..., P), in the type of `x`."""
        return x @ self.matrix.to(x.dtype)

    def cost(self, _inputs: tuple[Tensor, ...], output: Tensor, /) -> Cost:
        """Return one MAC in full precision for each rotated value and channel."""
        return Cost("rotation", output.numel() * len(self.matrix), 0, ((FULL_PRECISION_BITS, FULL_PRECISION_BITS),))

    def of_weight(self, weight: Tensor) -> Tensor:
        """Return the weight of a linear layer (rows, channels), rotated alike: (rows, P)."""
        return (weight.double() @ self.matrix.double()).to(weight.dtype)


def padded_channels(channels: int) -> int:
    """Return the smallest power of two that is not below a number of channels."""
    return 1 << (channels - 1).bit_length()


def hadamard_matrix(size: int) -> Tensor:
    """Return the Hadamard matrix after Sylvester, float64 of 1 and -1; `size` is a power of two.

    The element (i, j) is -1 to the power of the number of bits that i and j have in common.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    return matrix
