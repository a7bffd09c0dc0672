"""What is told before any work begins does not wait for torch: help, and what is wrong with the options."""

import json
import subprocess
import sys

import pytest

from basicsr.utils.registry import ALL_REGISTRIES
from basicsr.utils.signature import schema_of
from tests import tiny

# runs a command as its file is run, then tells which of the slow packages are loaded
PROGRAM = """
import json, runpy, sys
sys.argv = json.loads(sys.argv[1])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "cv2", "openvino"})]))
"""
COMMANDS = ("train.py", "test.py", "export.py", "upscale.py", "report.py", "sweep/__main__.py")
OPTIONS = "options/test/test_2DQuant_x4.yml"
WRONG = {
    "unknown option": (["train.py", "-opt", "options/train/train_2DQuant_x4.yml", "--force_yml", "train:totl_iter=3"], "total_iter"),
    "unknown option of a network": (["test.py", "-opt", OPTIONS, "--force_yml", "network_g:embed_dm=60"], "embed_dim"),
    "value of a network": (["test.py", "-opt", OPTIONS, "--force_yml", "network_g:num_heads=[six]"], "'six'"),
    "unknown calibrator": (["train.py", "-opt", "options/train/train_2DQuant_x4.yml", "--force_yml", "calibration:weights:type=Dobi"], "DOBI"),
    "unknown option of a model": (["train.py", "-opt", "options/train/demo_train_EDSR.yml", "--force_yml", "train:ema_decy=0"], "ema_decay"),
    "absent file of options": (["test.py", "-opt", "options/test/nothing.yml"], "nothing.yml' does not exist"),
    "absent weights": (["test.py", "-opt", OPTIONS, "--force_yml", "path:pretrain_network_FP=no.pth"], "'no.pth' of option 'path:pretrain_network_FP' does not exist"),
    "absent model": (["upscale.py", "-i", "a.png", "-o", "out", "--model", "no.pth"], "'no.pth' does not exist"),
    "absent grid": (["sweep/__main__.py", "-grid", "no.yml"], "no.yml' does not exist"),
}  # fmt: skip


def loaded_by(arguments):
    """Return the exit code of a command, the slow packages that it has imported, and what it said."""
    command = [f"basicsr/{arguments[0]}", *arguments[1:]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(command)], capture_output=True, text=True, cwd=tiny.ROOT
    )
    return *json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_slow(command):
    assert loaded_by([command, "--help"])[:2] == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_options_is_told_without_torch(kind):
    arguments, told = WRONG[kind]
    code, packages, said = loaded_by(arguments)
    assert (code, packages) == (2, []) and told in said


@pytest.mark.parametrize("registry", ALL_REGISTRIES, ids=lambda registry: registry.kind)
def test_what_the_source_tells_of_options_is_what_the_component_has(registry):
    for name in registry.names():
        read = registry.schema_in_source(name)
        assert read is not None, f"The options of '{name}' cannot be read from the source, see source_signature.py."
        assert fields(read) == fields(schema_of(registry.get(name))), name


def fields(schema):
    # as text: pydantic's fields inside of annotations are equal only if they are the same object
    return {
        name: (str(field.annotation), str(field.metadata), field.default) for name, field in schema.model_fields.items()
    }
