"""Codes of 2 to 8 bits in a row of bytes.

The codes, in the order of `flatten()`, form a stream of bits: code i takes the bits i * b to i * b + b - 1, its lowest bit first,
and bit k of the stream is bit k % 8 (counted from the lowest) of byte k // 8. The last byte is filled up with zeros. Eight codes
so take exactly b bytes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from basicsr.quant.spec import QuantizationError, QuantSpec

_GROUP = 8  # codes that fill a whole number of bytes, and whose bits fit into an int64


def packed_size(count: int, bits: int) -> int:
    """Return the number of bytes that `count` codes take."""
    return (count * bits + 7) // 8


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Return codes as bytes.

    Args:
        codes: uint8 of any shape, values 0 to 2**bits - 1.
        bits: 2 to 8.

    Returns:
        uint8 of the shape (packed_size(codes.numel(), bits),).

    Raises:
        QuantizationError: a code needs more bits, or `bits` is out of range.
    """
    spec = QuantSpec(bits)
    flat = codes.flatten()
    if flat.numel() and int(flat.max()) > spec.max_code:
        raise QuantizationError(f"The code {int(flat.max())} does not fit into {bits} bits.")
    groups = math.ceil(flat.numel() / _GROUP)
    padded = torch.zeros(groups * _GROUP, dtype=torch.int64, device=codes.device)
    padded[: flat.numel()] = flat
    shifts = torch.arange(_GROUP, device=codes.device)
    words = (padded.view(groups, _GROUP) << (shifts * bits)).sum(
        dim=1
    )  # no two codes share a bit: the sum is their union
    stream = (words[:, None] >> (shifts[:bits] * 8)) & 0xFF  # groups, bytes of a group
    return stream.to(torch.uint8).flatten()[: packed_size(flat.numel(), bits)]


def unpack_codes(packed: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """Return the codes that `pack_codes` packed.

    Args:
        packed: uint8, one axis.
        bits: 2 to 8.
        shape: shape of the codes.

    Returns:
        uint8 codes from 0 to 2**bits - 1 in this shape.

    Raises:
        QuantizationError: the number of bytes does not go with shape and bits.
    """
    spec, count = QuantSpec(bits), math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != (packed_size(count, bits),):
        raise QuantizationError(
            f"Codes of {bits} bits in the shape {tuple(shape)} take {packed_size(count, bits)} bytes, but there are "
            f"{packed.numel()} elements of {packed.dtype} in the shape {tuple(packed.shape)}."
        )
    groups = math.ceil(count / _GROUP)
    stream = torch.zeros(groups * bits, dtype=torch.int64, device=packed.device)
    stream[: packed.numel()] = packed
    shifts = torch.arange(_GROUP, device=packed.device)
    words = (stream.view(groups, bits) << (shifts[:bits] * 8)).sum(dim=1)
    codes = (words[:, None] >> (shifts * bits)) & spec.max_code  # groups, codes of a group
    return codes.to(torch.uint8).flatten()[:count].reshape(tuple(shape))
