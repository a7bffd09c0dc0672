"""What a call of a layer costs: products, and the bits of their factors."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import FULL_PRECISION_BITS


@dataclass(frozen=True)
class Cost:
    """What one call of a layer costs.

    Attributes:
        kind: what it computes, for tables: `linear`, `matmul`, `conv`, or a name of one's own.
        macs: multiply-accumulate operations (MAC).
        weights: number of elements of the weight, without the bias; 0 where both factors are activations.
        factor_bits: bits of the first factor (of the weight, if there is one) and of the second; one pair for each of several
            parts that cost the same.
    """

    kind: str
    macs: int
    weights: int
    factor_bits: tuple[tuple[int, int], ...]


def bits_of(quantizer: nn.Module) -> int:
    """Return the bits of what passes through a slot; 32 where no quantizer sits in it."""
    return quantizer.spec.bits if isinstance(quantizer, Quantizer) else FULL_PRECISION_BITS


def weighted_cost(kind: str, weight: Tensor, output: Tensor, factor_bits: Sequence[tuple[int, int]]) -> Cost:
    """Return the cost of a layer each of whose outputs is a sum over one row of the weight: a linear layer or a convolution.

    Args:
        kind: see `Cost`.
        weight: rows (output channels) first.
        output: what the layer returned.
        factor_bits: bits of weight and input, for each of equally large parts.
    """
    return Cost(kind, output.numel() * weight[0].numel(), weight.numel(), tuple(factor_bits))
