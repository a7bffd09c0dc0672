"""From a trained quantized network to the integers that it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.insertion.quantization_map import QuantizationMap, QuantizerEntry
from basicsr.quant.ops import functional
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


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
def freeze_weights(network: nn.Module) -> dict[str, FrozenWeight]:
    """Return all quantized weights of a calibrated network, by the full names of their quantizers.

    Raises:
        QuantizationError: a weight quantizer has no uniform grid, or is not calibrated.
    """
    quantizers = dict(named_quantizers(network))
    return {name: freeze_weight(quantizers[name], weight) for name, weight in quantized_weights(network).items()}


@torch.no_grad()
def freeze_weight(quantizer: Quantizer, weight: Tensor) -> FrozenWeight:
    """Return a weight as the integers that its quantizer makes of it.

    Raises:
        QuantizationError: the quantizer has no uniform grid, or is not calibrated.
    """
    lower, upper = (bound.detach().clone() for bound in quantizer.affine_bounds(weight))
    return FrozenWeight(quantizer.codes(weight), lower, upper, _asymmetric(quantizer.spec))


def frozen_map(quantization_map: QuantizationMap) -> QuantizationMap:
    """Return the map of the frozen network: its weights lie on their grids already, so affine quantizers reproduce them."""

    def freeze(entry: QuantizerEntry) -> QuantizerEntry:
        if entry.role == "activation":
            return entry
        return replace(entry, type="Affine", spec=_asymmetric(entry.spec), options={})

    return QuantizationMap(
        tuple(
            replace(module, quantizers={slot: freeze(entry) for slot, entry in module.quantizers.items()})
            for module in quantization_map.modules
        )
    )


def _asymmetric(spec: QuantSpec) -> QuantSpec:
    """Return the specification with two bounds: not every quantizer that calls itself symmetric has a symmetric grid."""
    return replace(spec, symmetric=False)


@torch.no_grad()
def put_frozen_weights(network: nn.Module, frozen: Mapping[str, FrozenWeight]) -> None:
    """Set the quantized weights of a network with affine weight quantizers, and the bounds of these, to frozen ones.

    Args:
        network: built from `frozen_map`.
        frozen: by the full names of the weight quantizers; one for each.

    Raises:
        QuantizationError: a weight is missing, there is one too many, or its shape or bits are others.
    """
    weights = quantized_weights(network)
    if weights.keys() != frozen.keys():
        odd = sorted(weights.keys() ^ frozen.keys())
        raise QuantizationError(f"The frozen weights are not those of this network; '{odd[0]}' is on one side only.")
    for name, quantizer in named_quantizers(network):
        if name not in frozen:
            continue
        chosen = frozen[name]
        if chosen.codes.shape != weights[name].shape or chosen.spec != quantizer.spec:
            raise QuantizationError(
                f"The frozen weight '{name}' has the shape {tuple(chosen.codes.shape)} and {chosen.spec}, the network needs "
                f"{tuple(weights[name].shape)} and {quantizer.spec}."
            )
        weights[name].copy_(chosen.values)  # a view of the parameter
        quantizer.set_bounds(chosen.lower_bound, chosen.upper_bound)
