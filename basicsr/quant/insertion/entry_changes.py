"""Changes of what a quantization map records, before anything is inserted: rotations, late divisions, quantizers of single places."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from basicsr.quant.insertion.quantization_map import ModuleEntry, QuantizerEntry
from basicsr.quant.modules.base import Role
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import suggestion
from basicsr.utils.registry import QMODULE_REGISTRY, QUANTIZER_REGISTRY

Entries = tuple[ModuleEntry, ...]


def with_rotations(entries: Entries, *, input_scales: bool) -> Entries:
    """Return the entries, with a rotation of the input where a linear layer quantizes it.

    Raises:
        QuantizationError: channels of inputs are divided by factors besides, or there is no such layer.
    """
    rotated = tuple(replace(entry, input_rotation=_can_rotate(entry)) for entry in entries)
    if input_scales:
        raise QuantizationError(
            "'quantization:rotate_inputs' and 'quantization:input_scales' are both true, but a layer either rotates its input or divides "
            "its channels. Set one of them to false."
        )
    if not any(entry.input_rotation for entry in rotated):
        raise QuantizationError(
            "'quantization:rotate_inputs' is true, but the network has no linear layer whose input is quantized. Set it to false, or "
            "choose another 'quantization:coverage'."
        )
    return rotated


def _can_rotate(entry: ModuleEntry) -> bool:
    quantizes_inputs = any(quantizer.role == "activation" for quantizer in entry.quantizers.values())
    return quantizes_inputs and QMODULE_REGISTRY.get(entry.type, "coverage").rotates_its_input


def with_late_division(entries: Entries, globs: Sequence[str]) -> Entries:
    """Return the entries, with a late division in the products that the globs name; where no activation is quantized, there is none.

    Raises:
        QuantizationError: a glob matches nothing.
    """
    if not any(quantizer.role == "activation" for entry in entries for quantizer in entry.quantizers.values()):
        return entries  # weights alone are quantized, and a recipe for both need not be changed
    for glob in globs:
        matched = [entry for entry in entries if fnmatchcase(entry.name, glob)]
        if not matched:
            names = [entry.name for entry in entries]
            raise QuantizationError(
                f"'quantization:late_division' names '{glob}', but no layer is called so. {suggestion(glob, names)}"
            )
        entries = tuple(replace(entry, late_division=True) if entry in matched else entry for entry in entries)
    return entries


def with_quantizers_by_name(entries: Entries, rules: Sequence[Mapping[str, Any]]) -> Entries:
    """Return the entries, with another type of quantizer in the places that a rule names; bits and granularity stay.

    Args:
        entries: of all modules.
        rules: `{match: glob on the full names of quantizers, quantizer: {type: ...}}`; later ones win.

    Raises:
        QuantizationError: a rule matches nothing, or a quantizer is for another role.
        OptionsError: an unknown type of quantizer, or options that do not fit it.
    """
    for rule in rules:
        option = "quantization:quantizers_by_name"
        kind, options = QUANTIZER_REGISTRY.resolve(rule["quantizer"], option)
        names = [f"{entry.name}.{slot}" for entry in entries for slot in entry.quantizers]
        matched = {name for name in names if fnmatchcase(name, rule["match"])}
        if not matched:
            raise QuantizationError(
                f"'{option}' names '{rule['match']}', but no quantizer is called so. {suggestion(rule['match'], names)}"
            )

        def changed(name: str, entry: QuantizerEntry) -> QuantizerEntry:
            if name not in matched:  # noqa: B023 -- used before the next rule
                return entry
            refuse_role(kind, rule["quantizer"]["type"], entry.role, option)  # noqa: B023
            return replace(entry, type=rule["quantizer"]["type"], options=options)  # noqa: B023

        entries = tuple(
            replace(e, quantizers={slot: changed(f"{e.name}.{slot}", q) for slot, q in e.quantizers.items()})
            for e in entries
        )
    return entries


def refuse_role(kind: type[Quantizer[Any]], name: str, role: Role, option: str) -> None:
    """Raise a QuantizationError unless a quantizer of this class can be in a place of this role."""
    if role not in kind.roles:
        raise QuantizationError(
            f"A {name} is for the quantization of {kind.roles[0]}s only; choose another '{option}'."
        )
