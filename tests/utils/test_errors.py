"""One root of errors, and the sentences that errors share."""

import ast
import errno
from pathlib import Path

import pytest

from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.command_line import USER_ERROR, guarded
from basicsr.utils.errors import CheckpointError, DataError, OptionsError, UserError, explained, suggestion
from basicsr.utils.options import load_options

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "basicsr"


def test_every_error_class_of_the_package_has_one_root():
    """Public classes of errors are a UserError; private ones never leave their file."""
    known, bases = {"UserError"}, {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and not node.name.startswith("_"):
                bases[node.name] = {ast.unparse(base) for base in node.bases}
    assert {"QuantizationError", "OptionsError", "DataError"} <= set(bases)
    while more := {name for name, parents in bases.items() if parents & known} - known:
        known |= more
    assert set(bases) - known == set()


def test_a_command_tells_a_quantization_error_without_a_traceback(capfd):
    assert issubclass(QuantizationError, UserError)
    assert guarded(lambda: QuantSpec(9).bits) == USER_ERROR
    message = capfd.readouterr().err
    assert "bits is 9, but must be a whole number from 2 to 8." in message and "Traceback" not in message


def test_an_error_of_the_system_becomes_a_sentence():
    with pytest.raises(DataError) as caught, explained(DataError, "The image 'a.png' cannot be written"):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/.tmp-1")
    expected = "The image 'a.png' cannot be written: No space left on device. Check the permissions and the space left."
    assert str(caught.value) == expected
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_without_a_number_keeps_its_text_and_the_remedy_is_the_callers():
    with pytest.raises(CheckpointError, match=r"^'a' cannot be read: cut off\. Copy it again\.$"):  # noqa: SIM117
        with explained(CheckpointError, "'a' cannot be read", "Copy it again."):
            raise OSError("cut off")


def test_other_errors_pass_unchanged():
    with pytest.raises(KeyError), explained(DataError, "'a' cannot be read"):
        raise KeyError("b")
    with pytest.raises(CheckpointError, match="^as it is$"), explained(DataError, "'a' cannot be read"):
        raise CheckpointError("as it is")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("conv_frist", ["conv_last", "conv_first"], "Did you mean 'conv_first'?"),
        ("swinir", ["EDSR", "SwinIR"], "Did you mean 'SwinIR'?"),
        ("zzz", ["b", "a"], "Known names: a, b."),
        ("zzz", [], "Known names: none."),
        (
            "zzz",
            [f"m{i:02}" for i in range(41)],
            f"Known names: {', '.join(f'm{i:02}' for i in range(40))} and 1 more.",
        ),
    ],
)
def test_the_nearest_name_or_the_known_ones(name, known, expected):
    assert suggestion(name, known) == expected


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("network_d={type: VGGStyleDiscriminator}", "network_d"),
        ("train:gan_opt={type: GANLoss}", "train:gan_opt"),
        ("train:perceptual_opt={type: PerceptualLoss}", "train:perceptual_opt"),
        ("model_type=ESRGANModel", "ESRGANModel"),
    ],
)
def test_what_is_out_of_scope_says_so(change, name):
    with pytest.raises(OptionsError, match=f"{name}.*Perceptual and GAN losses are out of scope"):
        load_options(ROOT / "options/train/demo_train_EDSR.yml", [change])


def test_a_plugin_may_bring_what_is_out_of_scope():
    assert suggestion("ganloss", ["GANLoss"]) == "Did you mean 'GANLoss'?"
