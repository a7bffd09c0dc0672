"""One grid for layers whose inputs are the same features, joined with more and more others, as in dense blocks."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError

_SLOT = "act_quantizer"


def share_inputs(network: nn.Module, groups: Sequence[Sequence[str]]) -> None:
    """Let the quantizers of the inputs of some layers have the same parameters, those of the last layer, which sees all features.

    Args:
        network: with quantizers, changed in place.
        groups: names of layers that have one grid; what is not quantized is passed over.

    Raises:
        QuantizationError: there is nothing to share, or quantizers of a group differ in type, bits or granularity.
    """
    shared = 0
    for names in groups:
        modules = (network.get_submodule(name) for name in names)
        quantizers = [q for q in (getattr(module, _SLOT, None) for module in modules) if isinstance(q, Quantizer)]
        for quantizer in quantizers[:-1]:
            _share(quantizer, quantizers[-1])
            shared += 1
    if not shared:
        raise QuantizationError(
            f"'quantization:shared_inputs' is for networks that join features again and again, such as RDN; {type(network).__name__} has "
            "no such layers in this coverage. Leave the option out."
        )


def _share(quantizer: Quantizer, leader: Quantizer) -> None:
    kinds = [(type(one), one.spec) for one in (quantizer, leader)]
    names = [name for name, _ in leader.named_parameters(recurse=False)]
    if kinds[0] != kinds[1] or leader.spec.channel_axis is not None or not names:
        raise QuantizationError(
            f"The quantizers '{quantizer.name}' and '{leader.name}' cannot share one grid: they must be of the same type with as many bits, "
            "have bounds for the whole tensor, and learn them. Leave 'quantization:shared_inputs' out, or what makes them differ."
        )
    for name in names:
        setattr(quantizer, name, getattr(leader, name))


def sharing_quantizers(network: nn.Module) -> dict[str, str]:
    """Return, for each quantizer that has the parameters of another one, the name of that one: the last in the order of registration."""
    names: dict[int, list[str]] = {}
    for name, module in network.named_modules():
        if isinstance(module, Quantizer):
            parameters = list(module.parameters(recurse=False))
            if parameters:
                names.setdefault(id(parameters[0]), []).append(name)
    return {name: group[-1] for group in names.values() for name in group[:-1]}


def check_shared(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse a state dict with different bounds where a network has one grid.

    Raises:
        QuantizationError: it was made without `quantization:shared_inputs`; names a quantizer.
    """
    for key, other in _shared_keys(network):
        if key in state_dict and other in state_dict and not torch.equal(state_dict[key], state_dict[other]):
            raise QuantizationError(
                f"The quantizer '{key.rpartition('.')[0]}' has another grid than '{other.rpartition('.')[0]}', but "
                "'quantization:shared_inputs' gives both the same. Leave the option out, as the run did that made this network."
            )


def _shared_keys(network: nn.Module) -> Iterator[tuple[str, str]]:
    for name, leader in sharing_quantizers(network).items():
        for parameter, _ in network.get_submodule(name).named_parameters(recurse=False):
            yield f"{name}.{parameter}", f"{leader}.{parameter}"
