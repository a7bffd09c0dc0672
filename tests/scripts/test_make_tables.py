"""scripts/make_tables.py as a program, from another folder."""

import re
import shutil

import pytest

from tests import tiny

pytestmark = pytest.mark.slow


def test_it_writes_what_is_committed(script_command, tmp_path):
    for name in ("docs/results", "options", "experiments/pretrained_models"):
        shutil.copytree(tiny.ROOT / name, tmp_path / name)
    file, guide = tmp_path / "docs/results/README.md", tmp_path / "docs/which-method.md"
    file.unlink()
    text = (tiny.ROOT / "docs/which-method.md").read_text()
    guide.write_text(text.replace("| MinMax |", "| MaxMin |"))
    training, of_training = tmp_path / "docs/training.md", (tiny.ROOT / "docs/training.md").read_text()
    training.write_text(of_training.replace("| EDSR x4 |", "| EDSR x5 |"))
    done = script_command("make_tables", "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{file}: " in done.stdout and " sweeps." in done.stdout
    assert file.read_text() == (tiny.ROOT / "docs/results/README.md").read_text()
    assert guide.read_text() == text and training.read_text() == of_training
    figures = [folder / "docs/images/methods_bit2.svg" for folder in (tmp_path, tiny.ROOT)]
    made, committed = (re.findall("<!-- (.*) -->", figure.read_text()) for figure in figures)
    assert made == committed and "QAD fitted" in made and "MinMax" in made


def test_what_is_wrong_is_said_in_a_sentence(script_command, tmp_path):
    shutil.copytree(tiny.ROOT / "docs/results", tmp_path / "docs/results")
    done = script_command("make_tables", "--root", tmp_path)
    assert done.returncode == 2 and "belong to no grid" in done.stderr and "Traceback" not in done.stderr
