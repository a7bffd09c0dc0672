"""The registries: components are found by file, imported on first use, and their options are their signature."""

import pytest

from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ALL_REGISTRIES, Registry
from basicsr.utils.signature import validate_arguments


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "good_part.py").write_text(
        "import builtins\n"
        "@builtins.PARTS.register()\nclass Ignored: pass\n"
        "PARTS = builtins.PARTS\n"
        "@PARTS.register('Good')\nclass GoodPart:\n"
        "    def __init__(self, given, /, *, size: int, rate: float = 0.5): self.all = (given, size, rate)\n"
    )
    (tmp_path / "broken_part.py").write_text("@PARTS.register()\nclass Broken:\n    raise RuntimeError('boom')\n")
    (tmp_path / "unreadable_part.py").write_text("def (:\n")
    registry = Registry("part", "PARTS", "archs", "_part")
    registry.add_folder(tmp_path)
    import builtins

    builtins.PARTS = registry
    yield registry
    del builtins.PARTS


def test_one_broken_file_does_not_break_the_others(registry):
    assert registry.build({"type": "Good", "size": 3}, "x", where="part").all == ("x", 3, 0.5)
    with pytest.raises(OptionsError, match=r"broken_part\.py', line 3 cannot be imported: RuntimeError: boom"):
        registry.get("Broken")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x = '\x00'", b"def (:"])
def test_files_that_are_no_python_are_named_when_something_is_missing(registry, tmp_path, content):
    (tmp_path / "other_part.py").write_bytes(content)
    assert registry.get("Good")
    with pytest.raises(OptionsError, match=r"no valid Python: .*other_part\.py"):
        registry.get("Other")


@pytest.mark.parametrize("name", [None, "", ["Good"], {"a": 1}, 3])
def test_a_name_that_is_no_text(registry, name):
    with pytest.raises(OptionsError, match="must name the part. Known names: Broken, Good"):
        registry.get(name)


def test_unknown_name_suggests_the_nearest(registry):
    with pytest.raises(OptionsError, match="'Goood'.*Did you mean 'Good'"):
        registry.get("Goood")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "Good"}, "'part:size' is required"),
        ({"type": "Good", "size": "4"}, "'part:size' has the value '4'"),
        ({"type": "Good", "size": True}, "'part:size' has the value True"),
        ({"type": "Good", "size": 4, "rat": 1.0}, "Unknown option 'part:rat'. Did you mean 'rate'"),
        ({"size": 4}, "'part:type' must name the part"),
    ],
)
def test_options_that_do_not_fit_the_constructor(registry, options, message):
    with pytest.raises(OptionsError, match=message):
        registry.resolve(options, "part")


def test_arguments_are_converted_to_the_annotation():
    def component(given, /, betas: tuple[float, float], rate: float = 1.0):
        return betas, rate

    assert validate_arguments(component, {"betas": [0, 0.9]}, "x") == {"betas": (0.0, 0.9), "rate": 1.0}


def test_every_registered_component_can_be_imported():
    for registry in ALL_REGISTRIES:
        for name in registry.names():
            assert registry.get(name) is not None
