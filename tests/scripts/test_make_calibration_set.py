import numpy as np
import pytest

from basicsr.data.calibration import load_calibration_set
from basicsr.utils.image import write_image


def test_writes_a_set_that_loads(load_script, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_image(tmp_path / "HR" / "a.png", image)
    out = tmp_path / "keydata" / "set.json"
    options = ["--dataroot_gt", tmp_path / "HR", "--scale", 2, "--num", 5, "--crop_size", 12, "--out", out]
    assert load_script("make_calibration_set").main([*map(str, options)]) == 0
    assert load_calibration_set(out, scale=2).shape == (5, 3, 12, 12)


def test_a_missing_folder_is_one_clear_error(load_script, capsys, tmp_path):
    main = load_script("make_calibration_set").main
    assert main(["--dataroot_gt", str(tmp_path / "HR"), "--scale", "2", "--out", str(tmp_path / "set.json")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"Error: The image folder '{tmp_path / 'HR'}' does not exist.")
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("option", ["--seed=-1", "--num=0", "--crop_size=many"])
def test_numbers_out_of_range_are_refused(load_script, capsys, option):
    with pytest.raises(SystemExit):
        load_script("make_calibration_set").main(["--dataroot_gt", "HR", "--scale", "2", "--out", "set.json", option])
    assert "is not an integer from" in capsys.readouterr().err
