"""Where pictures are written is where they are found."""

from pathlib import Path

import pytest

from basicsr.utils.errors import OptionsError
from basicsr.utils.options import load_options
from basicsr.utils.saved_images import result_files, saved_results, validation_files
from tests import tiny


def test_validations_have_the_places_of_basicsr():
    assert validation_files(Path("v"), None, 500)("baby") == Path("v/baby/baby_500.png")
    assert validation_files(Path("v"), "Set5", 500)("baby") == Path("v/Set5/baby/baby_500.png")


def test_results_are_found_by_their_suffix(tmp_path):
    assert result_files(Path("v"), "Set5", None)("baby") == Path("v/Set5/baby.png")
    for suffix in (None, "new"):
        for name in ("baby", "bird_1"):
            file = result_files(tmp_path, "Set5", suffix)(name)
            file.parent.mkdir(exist_ok=True)
            file.touch()
    found = saved_results(tmp_path, "Set5", "new")
    assert {name: file.name for name, file in found.items()} == {"baby": "baby_new.png", "bird_1": "bird_1_new.png"}
    assert saved_results(tmp_path, "Set5", None)["bird_1"].name == "bird_1.png"


@pytest.mark.parametrize("suffix", ["a/b", "..\\x", "''", "a:b"])
def test_a_suffix_that_is_no_part_of_a_name_is_refused(suffix):
    with pytest.raises(
        OptionsError, match="Option 'val:suffix' has the value .*: must be usable in the name of a file"
    ):
        load_options(tiny.TEST, [f"val:suffix={suffix}"])
