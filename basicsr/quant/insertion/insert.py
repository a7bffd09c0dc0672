"""Put quantizers into a full-precision network, by a coverage preset or by rules, or by replaying a quantization map."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.coverage import CoverageOverride, CoverageRule
from basicsr.quant.insertion.entry_changes import (
    refuse_role,
    with_late_division,
    with_quantizers_by_name,
    with_rotations,
)
from basicsr.quant.insertion.quantization_map import ModuleEntry, QuantizationMap, QuantizerEntry
from basicsr.quant.insertion.selection import (
    SelectedModule,
    exclude_matching,
    leave_out_full_precision,
    override_bits,
    require_accepted,
    select_modules,
)
from basicsr.quant.modules.base import QModule, QuantizerSlot, Role
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import Granularity, QuantizationError, QuantSpec
from basicsr.utils.errors import suggestion
from basicsr.utils.registry import QMODULE_REGISTRY, QUANTIZER_REGISTRY

_AFFINE = {"type": "Affine"}
_EntryOfRole = Mapping[Role, Callable[[QuantizerSlot, int], QuantizerEntry]]


def insert_quantizers(
    network: nn.Module,
    coverage: str | Sequence[CoverageRule],
    w_bits: int,
    a_bits: int,
    *,
    overrides: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[str] = (),
    weight_quantizer: Mapping[str, Any] = _AFFINE,
    activation_quantizer: Mapping[str, Any] = _AFFINE,
    weight_granularity: Granularity = "per_tensor",
    activation_granularity: Granularity = "per_tensor",
    weight_symmetric: bool = False,
    activation_symmetric: bool = False,
    input_scales: bool = False,
    rotate_inputs: bool = False,
    late_division: Sequence[str] = (),
    quantizers_by_name: Sequence[Mapping[str, Any]] = (),
) -> QuantizationMap:
    """Replace modules of `network` by their quantized twins, in place. The quantizers still need calibration.

    Args:
        network: a full-precision network. It is left as it was if an error is raised.
        coverage: name of a preset (`coverage.PRESETS`), or rules, each of which must match; the first that matches counts.
        w_bits: bits of the weights, 2 to 8, or 32 for full precision.
        a_bits: bits of the activations, likewise.
        overrides: `{match: glob, w_bits: ..., a_bits: ...}`, see `coverage.CoverageOverride`; later ones win.
        exclude: globs on the names of what to leave in full precision: modules (`body.0.*`), parts of split ones
            (`*.attn.qkv.v`) or single quantizers (`body.*.conv1.act_quantizer`).
        weight_quantizer: `{type: registered name, ...options of its constructor}`.
        activation_quantizer: as `weight_quantizer`.
        weight_granularity: one pair of bounds for a weight, or one for each output channel (axis 0).
        activation_granularity: the same for input channels; factors of a matrix product, which have none, stay per tensor.
        weight_symmetric: the bounds of weights are -u and u.
        activation_symmetric: the bounds of activations are -u and u.
        input_scales: give linear layers and convolutions whose input is quantized factors for its channels, which calibration chooses.
        rotate_inputs: rotate the inputs of linear layers that are quantized, and their weights alike, see `modules.input_rotation`.
        late_division: globs on the names of products whose first factor is a softmax map, quantized before its division by the sum of a
            row, see `modules.matmul_qmodule`.
        quantizers_by_name: `{match: glob on the names of quantizers, quantizer: {type: ...}}`: others than those of their role; later ones win.

    Returns:
        The record of every quantizer; `apply_quantization_map` replays it.

    Raises:
        QuantizationError: bits out of range; a preset, rule or override that matches nothing; a module of an unexpected
            type; a network that has quantizers already; a quantizer of activations for weights; inputs to rotate, but no linear
            layer that is quantized, or factors of inputs besides.
        OptionsError: an unknown type of quantizer or quantized module, or options that do not fit it.
    """
    _refuse_quantized(network)
    selected = select_modules(network, coverage, w_bits, a_bits)
    _adjust(selected, exclude, overrides)
    weights = partial(_quantizer_entry, weight_quantizer, weight_symmetric, weight_granularity)
    activations = partial(_quantizer_entry, activation_quantizer, activation_symmetric, activation_granularity)
    entry_of_role: _EntryOfRole = {"weight": weights, "activation": activations}
    entries = tuple(_module_entry(name, module, entry_of_role, input_scales) for name, module in selected.items())
    entries = with_rotations(entries, input_scales=input_scales) if rotate_inputs else entries
    entries = with_late_division(entries, late_division)
    quantization_map = QuantizationMap(with_quantizers_by_name(entries, quantizers_by_name))
    apply_quantization_map(network, quantization_map)
    return quantization_map


def _adjust(
    selected: dict[str, SelectedModule], exclude: Sequence[str], overrides: Sequence[Mapping[str, Any]]
) -> None:
    """Take out what is excluded, then give single layers bits of their own."""
    for pattern in exclude:
        exclude_matching(selected, pattern)
    require_accepted(selected)
    for override in overrides:
        override_bits(selected, CoverageOverride(**override))
    leave_out_full_precision(selected)


def apply_quantization_map(network: nn.Module, quantization_map: QuantizationMap) -> None:
    """Replace the modules that a map names by quantized ones, in place, as `insert_quantizers` once did.

    Args:
        network: a full-precision network of the architecture that the map was made for; left as it was on an error.
        quantization_map: the record of every quantizer.

    Raises:
        QuantizationError: the map does not fit the network, or the network has quantizers already.
        OptionsError: an unknown type of quantizer or quantized module.
    """
    _refuse_quantized(network)
    modules = dict(network.named_modules())
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    replacements = {}
    for entry in quantization_map.modules:
        source = _source_module(modules, entry)
        replacements[entry.name] = _build_module(source, entry).to(device)
    for name, module in replacements.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module)
    for kind in {type(quantizer) for _, quantizer in named_quantizers(network)}:
        kind.attach(network)


def named_quantizers(network: nn.Module, role: Role | None = None) -> Iterator[tuple[str, Quantizer]]:
    """Yield the quantizers of a network, or those of one role, with their full names, in the order of registration."""
    weights = quantized_weights(network) if role else {}
    for name, module in network.named_modules():
        if isinstance(module, Quantizer) and (role is None or (name in weights) == (role == "weight")):
            yield name, module


def quantized_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return what the weight quantizers of a network, or of a part of one, quantize, detached, by the names of the quantizers."""
    return {
        f"{name}.{slot}" if name else slot: weight.detach()
        for name, module in network.named_modules()
        if isinstance(module, QModule)
        for slot, weight in module.weights().items()
        if isinstance(module.get_submodule(slot), Quantizer)
    }


def quantizers_with_same_input(network: nn.Module) -> dict[str, str]:
    """Return, for each quantizer of a network, or of a part of one, whose input another one before it quantizes in the same way, that one.

    Such quantizers have the same type and specification, so that calibration finds the same bounds for them.
    """
    leaders: dict[str, str] = {}
    for module_name, module in network.named_modules():
        if isinstance(module, QModule):
            first_of_kind: dict[tuple[type[Quantizer], QuantSpec], str] = {}
            for slot in module.slots_with_same_input():
                quantizer, name = module.get_submodule(slot), f"{module_name}.{slot}" if module_name else slot
                if not isinstance(quantizer, Quantizer):
                    continue
                first = first_of_kind.setdefault((type(quantizer), quantizer.spec), name)
                if first != name:
                    leaders[name] = first
    return leaders


def quantizer_parameters(network: nn.Module, role: Role | None = None) -> list[nn.Parameter]:
    """Return the parameters of all quantizers, or of those of one role: for affine ones, the bounds."""
    return list(learned_by_quantizers(network, role).values())


def learned_by_quantizers(network: nn.Module, role: Role | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters of all quantizers, or of those of one role, by their full names; what several share, by the first."""
    learned = {
        f"{name}.{key}": parameter
        for name, quantizer in named_quantizers(network, role)
        for key, parameter in quantizer.named_parameters()
    }
    first = {id(parameter): name for name, parameter in reversed(learned.items())}  # quantizers may share some
    return {name: parameter for name, parameter in learned.items() if first[id(parameter)] == name}


def _refuse_quantized(network: nn.Module) -> None:
    name = next((name for name, _ in named_quantizers(network)), None)
    if name is not None:
        raise QuantizationError(
            f"The network has quantizers already, such as '{name}'. Start from a full-precision network."
        )


def _module_entry(name: str, module: SelectedModule, entry_of_role: _EntryOfRole, input_scales: bool) -> ModuleEntry:
    quantizers = {
        slot.name: entry_of_role[slot.role](slot, module.bits[slot.name])
        for slot in module.slots
        if slot.name in module.bits
    }
    full_precision = tuple(slot.name for slot in module.slots if slot.name not in module.bits)
    scaled = input_scales and QMODULE_REGISTRY.get(module.rule.type, "coverage").scales_its_input
    scaled = scaled and any(entry.role == "activation" for entry in quantizers.values())
    return ModuleEntry(name, module.rule.type, module.rule.split, quantizers, full_precision, scaled)


def _quantizer_entry(
    quantizer: Mapping[str, Any], symmetric: bool, granularity: Granularity, slot: QuantizerSlot, bits: int
) -> QuantizerEntry:
    """Return the record of a quantizer, its options checked and completed by their defaults."""
    kind, options = QUANTIZER_REGISTRY.resolve(quantizer, f"{slot.role}_quantizer")
    refuse_role(kind, quantizer["type"], slot.role, f"quantization:{slot.role}_quantizer")
    if granularity == "per_channel" and slot.channel_axis is not None:
        spec = QuantSpec(bits, symmetric, "per_channel", slot.channel_axis)
    else:
        spec = QuantSpec(bits, symmetric)
    return QuantizerEntry(slot.role, quantizer["type"], spec, options)


def _source_module(modules: Mapping[str, nn.Module], entry: ModuleEntry) -> nn.Module:
    """Return the full-precision module that `entry` replaces."""
    source_type = QMODULE_REGISTRY.get(entry.type, f"quantization map:{entry.name}").source_type
    source = modules.get(entry.name)
    if source is None:
        raise QuantizationError(
            f"The quantization map names the module '{entry.name}', which the network does not have. "
            f"{suggestion(entry.name, modules)}"
        )
    if type(source).__name__ != source_type:
        raise QuantizationError(
            f"The quantization map puts a {entry.type} in the place of '{entry.name}', which is a {type(source).__name__} "
            f"and not a {source_type}."
        )
    if sum(child is source for module in modules.values() for child in module._modules.values()) > 1:
        raise QuantizationError(
            f"The module '{entry.name}' sits in the network in more than one place. Give each place a module of its own, "
            "or their quantizers could not be told apart."
        )
    return source


def _build_module(source: nn.Module, entry: ModuleEntry) -> QModule:
    qmodule = QMODULE_REGISTRY.get(entry.type)
    slots = {slot.name: slot.rotated if entry.input_rotation else slot for slot in qmodule.slots(source, entry.split)}
    if slots.keys() != entry.quantizers.keys() | set(entry.full_precision):
        raise QuantizationError(
            f"The quantization map gives '{entry.name}' the quantizers {', '.join(entry.quantizers)}, but a {entry.type} "
            f"has {', '.join(slots)}."
        )
    quantizers: dict[str, nn.Module] = {name: nn.Identity() for name in entry.full_precision}
    for name, quantizer in entry.quantizers.items():
        num_channels = slots[name].num_channels if quantizer.spec.granularity == "per_channel" else None
        full_name = f"{entry.name}.{name}"
        options = {"type": quantizer.type, **quantizer.options}
        channels = [slots[name].channels] if QUANTIZER_REGISTRY.get(quantizer.type, full_name).takes_channels else []
        built = QUANTIZER_REGISTRY.build(options, quantizer.spec, num_channels, *channels, where=full_name)
        built.name, built.built_from = full_name, options
        quantizers[name] = built
    layer = qmodule(source, quantizers)
    if entry.input_scale:
        channels = [slot.channels for slot in slots.values() if slot.role == "activation" and slot.channels]
        if not channels:
            raise QuantizationError(
                f"The quantization map scales the input of '{entry.name}', a {entry.type} without channels."
            )
        layer.add_input_scale(channels[0])
    if entry.input_rotation:
        layer.add_input_rotation()
    if entry.late_division:
        layer.divide_late()
    return layer
