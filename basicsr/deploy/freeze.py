"""From a trained quantized network to the integers that it is made of."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.insertion.quantization_map import QuantizationMap, QuantizerEntry
from basicsr.quant.integers.frozen import FrozenWeight, asymmetric, freeze_weight
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError


@torch.no_grad()
def freeze_weights(network: nn.Module) -> dict[str, FrozenWeight]:
    """Return all quantized weights of a calibrated network, by the full names of their quantizers.

    Raises:
        QuantizationError: a weight quantizer has no uniform grid, or is not calibrated.
    """
    quantizers = dict(named_quantizers(network))
    return {name: freeze_weight(quantizers[name], weight) for name, weight in quantized_weights(network).items()}


def frozen_map(quantization_map: QuantizationMap) -> QuantizationMap:
    """Return the map of the frozen network: its weights lie on their grids already, so affine quantizers reproduce them."""

    def freeze(entry: QuantizerEntry) -> QuantizerEntry:
        if entry.role == "activation":
            return entry
        return replace(entry, type="Affine", spec=asymmetric(entry.spec), options={})

    return QuantizationMap(
        tuple(
            replace(module, quantizers={slot: freeze(entry) for slot, entry in module.quantizers.items()})
            for module in quantization_map.modules
        )
    )


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
        assert isinstance(quantizer, AffineQuantizer)  # as `frozen_map` asks for
        quantizer.set_bounds(chosen.lower_bound, chosen.upper_bound)
