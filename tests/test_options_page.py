"""The files and values that docs/options-files.md shows load, and mean what it says."""

import json
import re
import shutil

import pytest

from basicsr.utils.options import first_of_chain, load_options
from tests import tiny

PAGE = (tiny.ROOT / "docs/options-files.md").read_text(encoding="utf-8")
FILES = {name: text for text, name in re.findall(r"^```yaml\n(# (options/\S+)\n(?:.*\n)*?)```", PAGE, re.MULTILINE)}
VALUES = re.findall(r"^\| `([\w:]+)=(\S+)` \| [^|]+ \| `(.+)` \|$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """A copy of the options with the files of the page."""
    shutil.copytree(tiny.ROOT / "options", tmp_path / "options")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "options/train"


def test_bases_conditions_and_axes(folder):
    options = load_options(folder / "mine.yml")
    assert (options.name, options.train.total_iter) == ("mine_SwinIR_2DQuant_x4_bit4", 80)
    given = ["network=edsr_baseline", "scale=2", "bit=2", "recipe=2DQuant_as_released"]
    other = load_options(folder / "mine.yml", given)
    assert (other.name, other.train.total_iter) == ("mine_EDSR_2DQuant_as_released_x2_bit2", 160)
    assert other.network_g["type"] == "EDSR" and other.network_g["upscale"] == 2
    assert load_options(folder / "mine.yml", [*given, "train:total_iter=7"]).train.total_iter == 7


def test_placeholders_and_removed_entries(folder):
    assert load_options(folder / "labelled.yml", ["scale=3"]).name == "lab_SwinIR_x3"
    before, after = load_options(folder / "train_ODM.yml"), load_options(folder / "removed.yml")
    assert "test_1" in before.datasets and before.train.model_extra["mismatch_loss"]
    assert "test_1" not in after.datasets and after.train.model_extra["mismatch_loss"] is None
    given = re.search(r"On the command line: `(.+)`", PAGE).group(1).split()
    assert load_options(folder / "train_ODM.yml", given) == after


def test_a_file_that_comes_after_another(folder):
    options = load_options(folder / "my_chain.yml", ["bit=3"])
    first = first_of_chain(options)
    assert (options.name, first.name, first.bit, first.train.total_iter) == (
        "my_chain_x4_bit3",
        "my_chain_x4_bit3_start",
        3,
        40,
    )
    assert first.network_g == options.network_g and options.train.total_iter != 40


@pytest.mark.parametrize(("place", "written", "read"), VALUES)
def test_values(folder, place, written, read):
    value = load_options(folder / "demo_2DQuant.yml", [f"{place}={written}"]).model_dump()
    for key in place.split(":"):
        value = value[key]
    assert value == json.loads(read) and type(value) is type(json.loads(read))


def test_the_page_shows_them():
    assert len(FILES) == 4 and len(VALUES) == 7
