"""The record of every quantizer in a network: saved beside a run, shown as a table, replayed on a fresh network."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from basicsr.quant.modules.base import Role
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY

FORMAT_VERSION = 1

ActivationRanges = Literal["dynamic", "static"]


@dataclass(frozen=True)
class QuantizerEntry:
    """One quantizer.

    Attributes:
        role: whether it quantizes a weight or an activation.
        type: registered name of the quantizer.
        spec: bits, symmetry and granularity.
        options: the other arguments of its constructor.
    """

    role: Role
    type: str
    spec: QuantSpec
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleEntry:
    """One quantized module.

    Attributes:
        name: dotted name in the network.
        type: registered name of the quantized module.
        split: names of its parts; empty if it has none.
        quantizers: by their path inside the module, such as `q.act_quantizer`.
        full_precision: paths of the quantizers that were left out, so that their tensors stay in full precision.
        input_scale: whether the channels of its input are scaled, see `modules.input_scale`.
        input_rotation: whether its input is rotated, see `modules.input_rotation`.
        late_division: whether its first factor is a softmax map that is divided late, see `modules.matmul_qmodule`.
    """

    name: str
    type: str
    split: tuple[str, ...]
    quantizers: dict[str, QuantizerEntry]
    full_precision: tuple[str, ...] = ()
    input_scale: bool = False
    input_rotation: bool = False
    late_division: bool = False

    def bits(self, role: Role) -> str:
        """Return the bits of the quantizers of a role, such as `4`, `4/8` if they differ, `-` if there are none."""
        return (
            "/".join(str(b) for b in sorted({q.spec.bits for q in self.quantizers.values() if q.role == role})) or "-"
        )


@dataclass(frozen=True)
class QuantizationMap:
    """All quantized modules of a network, in the order of registration."""

    modules: tuple[ModuleEntry, ...]

    @property
    def quantizers(self) -> dict[str, QuantizerEntry]:
        """All quantizers, by their full names."""
        return {f"{m.name}.{slot}": entry for m in self.modules for slot, entry in m.quantizers.items()}

    @property
    def activation_ranges(self) -> ActivationRanges:
        """Whether activations are quantized in ranges that are computed anew for each sample."""
        return activation_ranges(entry.type for entry in self.quantizers.values() if entry.role == "activation")

    def as_dict(self) -> dict[str, Any]:
        """Return the map in types that JSON knows."""
        return {
            "format_version": FORMAT_VERSION,
            "activation_ranges": self.activation_ranges,
            "modules": [_module_as_dict(module) for module in self.modules],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "QuantizationMap":
        """Read what `as_dict` returned, possibly after a round trip through JSON.

        Raises:
            QuantizationError: another format version, or not a quantization map.
        """
        try:
            version = data["format_version"]
            if version != FORMAT_VERSION:
                raise QuantizationError(
                    f"The quantization map has the format version {version!r}; this program reads {FORMAT_VERSION}."
                )
            return cls(tuple(_module_from_dict(module) for module in data["modules"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise QuantizationError(
                f"This is not a quantization map as written by this program: {type(error).__name__} {error}."
            ) from error

    def format_table(self) -> str:
        """Return a table for the log: a line for modules that differ in their numbers only, and the totals."""
        groups: dict[tuple[str, ...], list[ModuleEntry]] = {}
        for module in self.modules:
            pattern = ".".join("*" if part.isdigit() else part for part in module.name.split("."))
            kind = f"{module.type} ({', '.join(module.split)})" if module.split else module.type
            groups.setdefault((pattern, kind, module.bits("weight"), module.bits("activation")), []).append(module)
        rows = [("modules", "type", "count", "weight bits", "activation bits", "quantizers")]
        for (_, kind, weight_bits, activation_bits), members in groups.items():
            count = sum(len(m.quantizers) for m in members)
            pattern = _common_pattern(m.name for m in members)
            rows.append((pattern, kind, str(len(members)), weight_bits, activation_bits, str(count)))
        rows.append(("total", "", str(len(self.modules)), "", "", str(len(self.quantizers))))
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def activation_ranges(quantizer_types: Iterable[str]) -> ActivationRanges:
    """Return `dynamic` if one of these registered quantizers of activations takes the range of each sample, else `static`.

    Results of the two kinds do not compare: a dynamic range costs a reduction over every activation at inference.
    """
    return "dynamic" if any(QUANTIZER_REGISTRY.get(name).dynamic for name in set(quantizer_types)) else "static"


def _module_as_dict(module: ModuleEntry) -> dict[str, Any]:
    data = {**asdict(module), "split": list(module.split), "full_precision": list(module.full_precision)}
    for change in ("input_scale", "input_rotation", "late_division"):
        if not data[change]:  # so that the records of networks without look as they always did
            del data[change]
    return data


def _module_from_dict(data: Mapping[str, Any]) -> ModuleEntry:
    quantizers = {
        slot: QuantizerEntry(**{**entry, "spec": QuantSpec(**entry["spec"])})
        for slot, entry in data["quantizers"].items()
    }
    tuples = {"split": tuple(data["split"]), "full_precision": tuple(data.get("full_precision", ()))}
    return ModuleEntry(**{**data, **tuples, "quantizers": quantizers})


def _common_pattern(names: Iterable[str]) -> str:
    """Return the names as one, with `*` for the parts in which they differ."""
    parts = zip(*(name.split(".") for name in names), strict=True)
    return ".".join(part[0] if len(set(part)) == 1 else "*" for part in parts)
