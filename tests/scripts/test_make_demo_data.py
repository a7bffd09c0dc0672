from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[2] / "datasets" / "demo"


def test_the_repository_carries_what_the_script_makes(load_script, shared, tmp_path):
    assert (
        load_script("make_demo_data").main(["--photos", str(shared / "data" / "train_photos"), "--out", str(tmp_path)])
        == 0
    )
    made = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    assert made == {file.relative_to(DEMO) for file in DEMO.rglob("*") if file.is_file()}
    read_image = load_script("make_demo_data").read_image
    for file in made - {Path("LICENSES.md")}:
        np.testing.assert_array_equal(read_image(tmp_path / file), read_image(DEMO / file))
    assert (tmp_path / "LICENSES.md").read_text() == (DEMO / "LICENSES.md").read_text()


def test_the_most_detailed_part_is_cut(load_script):
    script = load_script("make_demo_data")
    image = np.zeros((384, 384, 3), np.uint8)
    image[128:, 96:352] = np.random.default_rng(0).integers(0, 256, (256, 256, 3))
    np.testing.assert_array_equal(script.most_detailed(image), image[128:, 96:352])


def test_a_missing_folder_is_one_clear_error(load_script, capsys, tmp_path):
    arguments = ["--photos", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert load_script("make_demo_data").main(arguments) == 1
    assert capsys.readouterr().err.startswith("Error: The image '")
