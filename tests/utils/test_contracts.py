"""Each registry refuses a component that lacks a member, and says which one and what it is for."""

from typing import ClassVar

import pytest

from basicsr.utils import registry as registries
from basicsr.utils.contracts import Contract, required_members
from basicsr.utils.errors import OptionsError

HEAD = "from basicsr.utils.registry import {variable}\n{imports}\n\n@{variable}.register()\nclass Lacking({bases}):\n    {body}\n"
LACKING = {
    "ARCH": ("from torch import nn", "nn.Module", "scale = 2", r"lacks 'forward' \(Enlarge images"),
    "LOSS": ("from torch import nn", "nn.Module", "pass", r"lacks 'forward' \(Return the loss, a scalar"),
    "DATASET": (
        "from basicsr.data.base import PairedDataset",
        "PairedDataset",
        "def __init__(self, scale, phase, /): pass\n    def __len__(self): return 1\n    def __getitem__(self, index): return {}",
        r"lacks 'sample' \(Return a random crop of a pair, drawn from `seed` alone; training learns from it\)",
    ),
    "MODEL": (
        "from basicsr.models.quantized_model import QuantizedModel",
        "QuantizedModel",
        "pass",
        r"lacks 'optimize_parameters' \(Take one step on a batch",
    ),
    "GRADIENT_RULE": (
        "from basicsr.training.gradient_rules.base import GradientRule",
        "GradientRule",
        "pass",
        r"lacks 'combine' \(Return the combined gradients\)",
    ),
    "QUANTIZER": (
        "from basicsr.quant.quantizers.base import Quantizer",
        "Quantizer",
        "def fake_quantize(self, x): return x\n    def load_calibration(self, result): pass",
        r"lacks 'takes' \(the kind of calibration result that it is set up from\); 'codes' \(Return the codes of `x`",
    ),
    "CALIBRATOR": (
        "from basicsr.quant.calibrators.base import BoundsCalibrator",
        "BoundsCalibrator",
        "def finish(self): pass",
        r"lacks '_find_bounds' \(Return the bounds after the last pass",
    ),
    "QMODULE": (
        "from basicsr.quant.modules.base import QModule",
        "QModule",
        "source_type = 'Linear'",
        r"lacks .*'slots' \(Return the places for quantizers in the quantized twin of `source`\)",
    ),
}


@pytest.fixture(autouse=True)
def _forget_plugins(monkeypatch):  # they are remembered as long as the process lives
    for registry in registries.ALL_REGISTRIES:
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
    yield
    for registry in registries.ALL_REGISTRIES:
        registry._components.pop("Lacking", None)
        registry._checked.discard("Lacking")


def load(kind, tmp_path, text):
    registry = getattr(registries, f"{kind}_REGISTRY")
    file = tmp_path / f"lacking{registry._suffix}.py"
    file.write_text(text, encoding="utf-8")
    registry.add_folder(tmp_path)
    return registry.get("Lacking"), file


@pytest.mark.parametrize("kind", LACKING)
def test_a_missing_member_is_named_with_its_purpose_when_the_file_is_loaded(kind, tmp_path):
    imports, bases, body, message = LACKING[kind]
    text = HEAD.format(variable=f"{kind}_REGISTRY", imports=imports, bases=bases, body=body)
    with pytest.raises(OptionsError, match=message) as refused:
        load(kind, tmp_path, text)
    assert f"'Lacking' in the file '{tmp_path}" in str(refused.value)


@pytest.mark.parametrize("kind", sorted(set(LACKING) - {"ARCH", "LOSS"}))
def test_a_component_without_the_base_class_is_told_which_one(kind, tmp_path):
    text = HEAD.format(variable=f"{kind}_REGISTRY", imports="", bases="object", body="pass")
    with pytest.raises(OptionsError, match=r"does not derive from basicsr\.\S+ and lacks '"):
        load(kind, tmp_path, text)


@pytest.mark.parametrize("kind", ["ARCH", "LOSS"])
def test_a_plain_module_with_a_forward_pass_is_enough(kind, tmp_path):
    text = HEAD.format(
        variable=f"{kind}_REGISTRY",
        imports="from torch import nn",
        bases="nn.Module",
        body="def forward(self, x): return x",
    )
    component, _ = load(kind, tmp_path, text)
    assert component.__name__ == "Lacking"


def test_every_registry_with_a_base_class_has_a_contract():
    without = [registry.kind for registry in registries.ALL_REGISTRIES if registry._contract is None]
    assert without in ([], ["metric"])


class Base:
    """A base.

    Attributes:
        color: what it looks like,
            in words.
        size: its size.
    """

    color: ClassVar[str]
    size: ClassVar[int] = 3


def test_attributes_are_explained_by_the_docstring_of_the_class():
    assert required_members(Base) == ["color"]
    contract = Contract(__name__, "Base")
    with pytest.raises(
        OptionsError, match=r"The part 'x' in the file 'y.py' lacks 'color' \(what it looks like, in words\)\."
    ):
        contract.require(type("Part", (Base,), {}), "part", "x", "y.py")
    contract.require(type("Part", (Base,), {"color": "red"}), "part", "x", "y.py")
