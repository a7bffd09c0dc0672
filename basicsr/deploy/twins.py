"""Copies of a quantized network with other layers in the place of the quantized ones."""

import copy
from collections.abc import Callable

from torch import nn

from basicsr.quant.modules.base import QModule
from basicsr.quant.spec import QuantizationError


def with_twins(network: nn.Module, twin_of: Callable[[QModule], nn.Module]) -> nn.Module:
    """Return a copy of a network, in evaluation mode, with a twin of each quantized layer in its place.

    Args:
        network: the network; a full-precision one is copied as it is.
        twin_of: makes the twin of a layer.

    Raises:
        QuantizationError: a layer has no such twin; names the layer.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for name, module in list(network.named_modules()):
        if isinstance(module, QModule):
            parent, _, child = name.rpartition(".")
            try:
                twin = twin_of(module)
            except QuantizationError as error:
                raise QuantizationError(f"The layer '{name}' cannot be exported. {error}") from error
            setattr(network.get_submodule(parent), child, twin)
    return network
