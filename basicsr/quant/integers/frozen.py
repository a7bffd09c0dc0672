"""A weight as the integers that its quantizer makes of it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from basicsr.quant.ops import functional
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantSpec


@dataclass(frozen=True)
class FrozenWeight:
    """A weight, or the rows of one that a quantizer of its own quantizes, as integers.

    Attributes:
        codes: uint8, 0 to 2**bits - 1, in the shape of the weight.
        lower_bound: float32, () or (C,): what code 0 stands for.
        upper_bound: as `lower_bound`: what the largest code stands for.
        spec: bits and granularity.
    """

    codes: Tensor
    lower_bound: Tensor
    upper_bound: Tensor
    spec: QuantSpec

    @property
    def values(self) -> Tensor:
        """What the codes stand for, float32: what the quantizer of the trained network puts out (to the last bit if `Affine`)."""
        return functional.dequantize(
            self.codes, self.lower_bound, self.upper_bound, self.spec.bits, self.spec.channel_axis
        )


@torch.no_grad()
def freeze_weight(quantizer: Quantizer, weight: Tensor) -> FrozenWeight:
    """Return a weight as the integers that its quantizer makes of it.

    Raises:
        QuantizationError: the quantizer has no uniform grid, or is not calibrated.
    """
    lower, upper = (bound.detach().clone() for bound in quantizer.affine_bounds(weight))
    return FrozenWeight(quantizer.codes(weight), lower, upper, asymmetric(quantizer.spec))


def asymmetric(spec: QuantSpec) -> QuantSpec:
    """Return the specification with two bounds: not every quantizer that calls itself symmetric has a symmetric grid."""
    return replace(spec, symmetric=False)
