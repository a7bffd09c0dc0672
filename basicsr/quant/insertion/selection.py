"""Which modules and quantizers of a network a coverage selects, with how many bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import nn

from basicsr.quant.insertion.coverage import (
    CoverageOverride,
    CoveragePreset,
    CoverageRule,
    check_bits,
    find_preset,
)
from basicsr.quant.modules.base import QuantizerSlot
from basicsr.quant.spec import FULL_PRECISION_BITS, QuantizationError
from basicsr.utils.errors import suggestion
from basicsr.utils.registry import QMODULE_REGISTRY


@dataclass
class SelectedModule:
    """A module to quantize, while rules, exclusions and overrides are applied.

    Attributes:
        rule: the rule that selected it.
        slots: its places for quantizers.
        bits: of each quantizer, by the name of its slot; a slot that is not in it, or has 32, stays in full precision.
        refusal: why it has no slots, such as a padding that the quantized module does not know; None where it has.
    """

    rule: CoverageRule
    slots: list[QuantizerSlot]
    bits: dict[str, int] = field(default_factory=dict)
    refusal: str | None = None

    def set_bits(self, w_bits: int, a_bits: int) -> None:
        """Set the bits of all slots by their role."""
        self.bits = {slot.name: w_bits if slot.role == "weight" else a_bits for slot in self.slots}

    def replace_bits(self, bits: int) -> None:
        """Set other bits for all slots but those that stay in full precision."""
        self.bits = {
            slot: FULL_PRECISION_BITS if own == FULL_PRECISION_BITS else bits for slot, own in self.bits.items()
        }


def select_modules(
    network: nn.Module, coverage: str | Sequence[CoverageRule], w_bits: int, a_bits: int
) -> dict[str, SelectedModule]:
    """Return the modules that a preset or rules select, by name, in the order of registration.

    Raises:
        QuantizationError: bits out of range; a preset or rule that matches nothing; a module of an unexpected type.
        OptionsError: an unknown type of quantized module.
    """
    check_bits(w_bits, "w_bits")
    check_bits(a_bits, "a_bits")
    if isinstance(coverage, str):
        preset = find_preset(coverage)
    else:
        preset = CoveragePreset("", tuple(coverage), every_rule=True)
    rule_of: dict[str, CoverageRule] = {}
    for rule in preset.rules:
        names = _matching_names(network, rule)
        if not names and preset.every_rule:
            hint = f" The preset '{coverage}' is meant for {preset.meant_for}." if isinstance(coverage, str) else ""
            raise QuantizationError(_why_nothing_matches(network, rule) + hint)
        for name in names:
            rule_of.setdefault(name, rule)
    if preset.skips and not any(_is_of_sum(rule) for rule in rule_of.values()):
        raise QuantizationError(_why_no_sums(network, f"preset '{coverage}'"))
    if not rule_of:
        what = f"preset '{coverage}', meant for {preset.meant_for}," if preset.meant_for else "list of rules"
        raise QuantizationError(f"The coverage {what} matches no layer of {type(network).__name__}.")

    selected = {}
    for name, module in network.named_modules():
        if name in rule_of:
            rule = rule_of[name]
            try:
                slots = QMODULE_REGISTRY.get(rule.type, "coverage").slots(module, rule.split)
            except QuantizationError as error:  # told unless the module is excluded
                selected[name] = SelectedModule(rule, [], refusal=str(error))
                continue
            selected[name] = SelectedModule(rule, slots)
            selected[name].set_bits(rule.w_bits or w_bits, rule.a_bits or a_bits)
    if preset.end_bits is not None:
        with_weight = [s for s in selected.values() if any(slot.role == "weight" for slot in s.slots)]
        for end in with_weight[:1] + with_weight[-1:]:
            end.replace_bits(preset.end_bits)
    return selected


def _matching_names(network: nn.Module, rule: CoverageRule) -> list[str]:
    source_type = QMODULE_REGISTRY.get(rule.type, "coverage").source_type
    return [
        name
        for name, module in network.named_modules()
        if name and fnmatchcase(name, rule.modules) and type(module).__name__ == source_type
    ]


def _is_of_sum(rule: CoverageRule) -> bool:
    return bool(QMODULE_REGISTRY.get(rule.type, "coverage").source_type == "ResidualAdd")


def _why_no_sums(network: nn.Module, what: str) -> str:
    kind = type(network).__name__
    sums = [name for name, module in network.named_modules() if type(module).__name__ == "ResidualAdd"]
    found = f"only others, such as '{sums[0]}'" if sums else "none"
    return (
        f"The coverage {what} asks for quantizers at the sums of skip connections, which are modules of the class ResidualAdd, but of those "
        f"the network {kind} has {found}. Leave sums in full precision, as the presets 'body' and 'full' do, or let the architecture add by "
        "ResidualAdd of basicsr/archs/arch_util.py."
    )


def _why_nothing_matches(network: nn.Module, rule: CoverageRule) -> str:
    names = {name: type(module).__name__ for name, module in network.named_modules() if name}
    matching = [name for name in names if fnmatchcase(name, rule.modules)]
    if _is_of_sum(rule):
        return _why_no_sums(network, f"rule '{rule.modules}'")
    if not matching:
        return f"The coverage rule '{rule.modules}' matches no module. {suggestion(rule.modules, names)}"
    source_type = QMODULE_REGISTRY.get(rule.type, "coverage").source_type
    return (
        f"The coverage rule '{rule.modules}' asks for {rule.type}, which replaces a {source_type}, but matches no such "
        f"module: '{matching[0]}', for one, is a {names[matching[0]]}."
    )


def exclude_matching(selected: dict[str, SelectedModule], pattern: str) -> None:
    """Leave out what a glob matches: modules, parts of split ones (`*.attn.qkv.v`) or single quantizers (`*.act_quantizer`).

    Raises:
        QuantizationError: nothing that is selected matches, or nothing would be left.
    """
    excluded = {name: [slot for slot in m.bits if _reaches(pattern, name, slot)] for name, m in selected.items()}
    refused = [name for name, m in selected.items() if m.refusal and fnmatchcase(name, pattern)]
    if not any(excluded.values()) and not refused:
        raise QuantizationError(
            f"The exclusion '{pattern}' matches no selected module and no quantizer of one. {suggestion(pattern, selected)}"
        )
    if all(len(slots) == len(selected[name].bits) for name, slots in excluded.items()):
        raise QuantizationError(f"The exclusion '{pattern}' leaves no module to quantize.")
    for name, slots in excluded.items():
        for slot in slots:
            del selected[name].bits[slot]
        if name in refused or not (selected[name].bits or selected[name].refusal):
            del selected[name]


def require_accepted(selected: Mapping[str, SelectedModule]) -> None:
    """Raise a QuantizationError for the first module that a coverage selects and that cannot be quantized."""
    for name, module in selected.items():
        if module.refusal is not None:
            raise QuantizationError(
                f"The module '{name}' cannot be quantized. {module.refusal} Leave it in full precision with 'quantization:exclude'."
            )


def override_bits(selected: Mapping[str, SelectedModule], override: CoverageOverride) -> None:
    """Change the bits of what the override matches.

    Raises:
        QuantizationError: it matches nothing that it could change.
    """
    changed = False
    for name, module in selected.items():
        for slot in module.slots:
            bits = override.w_bits if slot.role == "weight" else override.a_bits
            if bits is not None and slot.name in module.bits and _reaches(override.match, name, slot.name):
                module.bits[slot.name] = bits
                changed = True
    if not changed:
        raise QuantizationError(
            f"The override '{override.match}' matches nothing that it could change. {suggestion(override.match, selected)}"
        )


def leave_out_full_precision(selected: dict[str, SelectedModule]) -> None:
    """Leave out the quantizers of 32 bits, and modules that have no others and learn nothing besides.

    Raises:
        QuantizationError: nothing is left to quantize.
    """
    for name, module in list(selected.items()):
        module.bits = {slot: bits for slot, bits in module.bits.items() if bits != FULL_PRECISION_BITS}
        if not module.bits and not QMODULE_REGISTRY.get(module.rule.type, "coverage").learns_besides:
            del selected[name]
    if not any(module.bits for module in selected.values()):
        raise QuantizationError(
            f"All weights and activations have {FULL_PRECISION_BITS} bits, so that nothing is quantized. Set w_bits or a_bits to 2 to 8."
        )


def _reaches(pattern: str, module: str, slot: str) -> bool:
    """Whether a glob matches a module, a part of it that holds a quantizer, or that quantizer."""
    return any(
        fnmatchcase(path, pattern)
        for path in accumulate([module, *slot.split(".")], lambda path, part: f"{path}.{part}")
    )
