"""Which modules of a network are quantized: rules, the presets made of them, and overrides of single layers.

Globs are those of `fnmatch`, case-sensitive, on the dotted names of modules; `*` also spans dots.
"""

from dataclasses import dataclass

from basicsr.quant.spec import FULL_PRECISION_BITS, QuantizationError, QuantSpec
from basicsr.utils.errors import suggestion

END_BITS = 8
"""Bits of the first and the last layer in the preset `full`, as in PTQ4SR (CVPR 2023)."""

SKIP_BITS = 8
"""Bits of the sums of skip connections in the preset `all_and_skips`, as in FQSR (ACM MM 2021)."""


def check_bits(bits: int | None, what: str) -> None:
    """Raise a QuantizationError that says `what`, unless `bits` is None, 32 or can be used."""
    if bits is None or bits == FULL_PRECISION_BITS:
        return
    try:
        QuantSpec(bits)
    except QuantizationError as error:
        raise QuantizationError(f"Cannot use {what}: {error}") from error


@dataclass(frozen=True)
class CoverageRule:
    """Selects the modules to replace by one type of quantized module.

    Attributes:
        modules: glob on module names, such as `*.attn.qkv`. Modules of another class than the type replaces are passed over.
        type: registered name of the quantized module, such as `QLinear`.
        split: names of the parts, for `QSplitLinear`.
        w_bits: bits of the weights; None for the bits of the run.
        a_bits: bits of the activations; None for the bits of the run.
    """

    modules: str
    type: str
    split: tuple[str, ...] = ()
    w_bits: int | None = None
    a_bits: int | None = None

    def __post_init__(self) -> None:
        where = f"the coverage rule '{self.modules}'"
        check_bits(self.w_bits, f"w_bits of {where}")
        check_bits(self.a_bits, f"a_bits of {where}")


@dataclass(frozen=True)
class CoverageOverride:
    """Changes the bits of some of the selected modules.

    Attributes:
        match: glob on the names of selected modules (`layers.0.*`), of their parts (`*.attn.qkv.v`) or of single quantizers
            (`*.fc2.act_quantizer`).
        w_bits: new bits of the weights that match; None to leave them.
        a_bits: new bits of the activations that match; None to leave them.
    """

    match: str
    w_bits: int | None = None
    a_bits: int | None = None

    def __post_init__(self) -> None:
        where = f"the override '{self.match}'"
        check_bits(self.w_bits, f"w_bits of {where}")
        check_bits(self.a_bits, f"a_bits of {where}")
        if self.w_bits is None and self.a_bits is None:
            raise QuantizationError(f"The override '{self.match}' changes nothing: give w_bits, a_bits or both.")


@dataclass(frozen=True)
class CoveragePreset:
    """A named list of rules.

    Attributes:
        meant_for: the networks that the rules fit, for messages.
        rules: where several match a module, the first counts.
        every_rule: each rule must match; otherwise one is enough, as when a preset knows several architectures.
        end_bits: bits of the first and the last layer with weights, in the order of registration, which in SR networks is
            that of execution; None to treat them as the others.
        skips: quantizes the sums of skip connections besides, so that some of them must match.
    """

    meant_for: str
    rules: tuple[CoverageRule, ...]
    every_rule: bool
    end_bits: int | None = None
    skips: bool = False


_GROUPS = (CoverageRule("body.*.rcab.?", "QConv2d"), CoverageRule("body.*.conv", "QConv2d"))
_BODY = (
    CoverageRule("body.*.conv1", "QConv2d"),
    CoverageRule("body.*.conv2", "QConv2d"),
    *_GROUPS,
    CoverageRule("RDBs.*.convs.*.conv.0", "QConv2d"),
    CoverageRule("RDBs.*.LFF", "QConv2d"),
)
_ALL = (
    CoverageRule("*.attn.qkv", "QSplitLinear", split=("q", "k", "v")),
    CoverageRule("*", "QLinear"),
    CoverageRule("*", "QConv2d"),
    CoverageRule("*", "QMatMul"),
)

PRESETS = {
    "2dquant": CoveragePreset(
        meant_for="networks of Swin transformer layers, such as SwinIR",
        rules=(
            CoverageRule("*.attn.qkv", "QSplitLinear", split=("q", "k", "v")),
            CoverageRule("*.attn.qk", "QMatMul"),
            CoverageRule("*.attn.av", "QMatMul"),
            CoverageRule("*.attn.proj", "QLinear"),
            CoverageRule("*.mlp.fc1", "QLinear"),
            CoverageRule("*.mlp.fc2", "QLinear"),
        ),
        every_rule=True,
    ),
    "body": CoveragePreset(
        meant_for="EDSR, MSRResNet, RCAN and RDN",
        rules=_BODY,
        every_rule=False,
    ),
    "body_and_attention": CoveragePreset(
        meant_for="RCAN, whose channel attention it quantizes besides",
        rules=(*_GROUPS, CoverageRule("body.*.attention.?", "QConv2d")),
        every_rule=True,
    ),
    "full": CoveragePreset(
        meant_for="any network with linear layers or convolutions",
        rules=_ALL,
        every_rule=False,
        end_bits=END_BITS,
    ),
    "body_and_skips": CoveragePreset(
        meant_for="EDSR, MSRResNet, RCAN and RDN",
        rules=(*_BODY, CoverageRule("body.*.add", "QResidualAdd"), CoverageRule("RDBs.*.add", "QResidualAdd")),
        every_rule=False,
        skips=True,
    ),
    "all_and_skips": CoveragePreset(
        meant_for="networks that add their skip connections by ResidualAdd",
        rules=(*_ALL, CoverageRule("*", "QSharedResidualAdd", a_bits=SKIP_BITS)),
        every_rule=False,
        skips=True,
    ),
}

AUTOMATIC = ("2dquant", "body", "full")
"""The presets to try in turn, where none is asked for."""


def find_preset(name: str) -> CoveragePreset:
    """Return the preset called `name`.

    Raises:
        QuantizationError: there is none; names the nearest one.
    """
    if name not in PRESETS:
        raise QuantizationError(f"There is no coverage preset '{name}'. {suggestion(name, PRESETS)}")
    return PRESETS[name]
