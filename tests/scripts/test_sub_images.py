"""Sub-images: where they are cut, what they are called, and that a stopped run is continued."""

import json

import numpy as np
import pytest

from basicsr.data import build_dataset
from basicsr.utils.image import read_image, write_image
from basicsr.utils.resize import downscale_image
from prepared_folders import Layout
from sub_images import Cut
from tests.lmdb_folders import make_lmdb

SMALL = ("--crop_size", 24, "--step", 12, "--thresh_size", 0)


@pytest.mark.parametrize(
    ("cut", "length", "starts"),
    [
        (Cut(480, 240, 0), 1356, [0, 240, 480, 720, 876]),  # an image of DIV2K: the last square ends with it
        (Cut(480, 240, 0), 1440, [0, 240, 480, 720, 960]),
        (Cut(120, 60, 0), 339, [0, 60, 120, 180, 219]),  # the same image at x4
        (Cut(480, 240, 160), 1356, [0, 240, 480, 720]),
        (Cut(480, 240, 0), 480, [0]),
        (Cut(480, 240, 0), 479, []),
    ],
)
def test_squares_begin_where_those_of_basicsr_do(cut, length, starts):
    assert cut.starts(length) == starts
    assert cut.places(length, cut.crop_size) == [(start, 0) for start in starts]


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for name, size in (("0001", (50, 36)), ("0002", (24, 24)), ("tiny", (23, 60))):
        write_image(tmp_path / "photos" / f"{name}.png", random.integers(0, 256, (*size, 3), dtype=np.uint8))
    return tmp_path / "photos"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_lr_squares_are_those_of_the_whole_picture(prepare_data, photos, tmp_path):
    out = tmp_path / "out"
    printed = prepare_data("--hr", photos, "--out", out, "--scales", 2, 4, "--subimages", *SMALL, code=1)
    assert "tiny.png' has 60x20 pixels, too few for sub-images of 24" in printed and "Problems found: 1" in printed
    layout = Layout(out)
    places = [(top, left) for top in (0, 12, 24) for left in (0, 12)]  # of 48 x 36, multiples of 4
    own = [f"0001_s{number:03d}" for number in range(1, 7)] + ["0002_s001"]
    assert names(layout.hr) == [f"{name}.png" for name in own]
    image = read_image(photos / "0001.png")
    for scale in (1, 2, 4):
        whole = image[:, :36] if scale == 1 else downscale_image(image[: 50 // scale * scale, :36], scale)
        folder, end = (layout.hr, "") if scale == 1 else (layout.lr(scale), f"x{scale}")
        for name, (top, left) in zip(own, places, strict=False):
            square = whole[top // scale : (top + 24) // scale, left // scale : (left + 24) // scale]
            np.testing.assert_array_equal(read_image(folder / f"{name}{end}.png"), square)
    assert "is in order" in prepare_data("--check", out)
    sets = [
        build_dataset(
            {"type": "PairedImageDataset", "name": "sub", "dataroot_gt": str(hr), "dataroot_lq": str(lr), "lq_size": 5},
            4, "train", "datasets:train",
        )
        for hr, lr in (
            (layout.hr, layout.lr(4)),
            (make_lmdb(layout.hr, tmp_path / "HR_sub.lmdb"), make_lmdb(layout.lr(4), tmp_path / "X4_sub.lmdb")),
        )
    ]  # fmt: skip
    assert len(sets[0]) == len(sets[1]) == 7
    assert all((sets[0][index]["lq"] == sets[1][index]["lq"]).all() for index in range(7))


def test_a_stopped_run_is_continued(prepare_data, photos, tmp_path):
    (photos / "tiny.png").unlink()
    out, command = tmp_path / "out", ("--hr", photos, "--scales", 2, "--subimages", *SMALL)
    assert "holds 9 sub-images" in prepare_data("--out", out, *command)
    files = {file: file.read_bytes() for file in out.rglob("*.png")}
    times = {}
    for number, file in enumerate(files):
        if number % 3 == 0:
            file.unlink()
        else:
            times[file] = file.stat().st_mtime_ns
    prepare_data("--out", out, *command)
    assert {file: file.read_bytes() for file in out.rglob("*.png")} == files
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())


def test_what_does_not_belong_together_is_refused(prepare_data, photos, tmp_path):
    (photos / "tiny.png").unlink()
    out, command = tmp_path / "out", ("--hr", photos, "--scales", 2, "--subimages")
    printed = prepare_data("--out", out, *command, "--crop_size", 25, code=1)
    assert "--crop_size 25 is no multiple of the scale factor 2" in printed
    prepare_data("--out", out, *command, *SMALL)
    assert json.loads((out / "sub_images.json").read_text()) == {
        "crop_size": 24,
        "step": 12,
        "thresh_size": 0,
        "multiple": 2,
    }
    printed = prepare_data("--out", out, *command, "--crop_size", 20, "--step", 10, code=1)
    assert "were cut with {'crop_size': 24" in printed and "Choose another --out" in printed
    assert "'multiple': 4" in prepare_data("--out", out, "--hr", photos, "--scales", 4, "--subimages", *SMALL, code=1)
    (photos / "0001.png").rename(photos / "0003.png")
    assert "holds images of other pictures, such as 0001_s001" in prepare_data("--out", out, *command, *SMALL, code=1)
    assert "--subimages goes with --hr and --out" in prepare_data("--out", out, *command, "--link", code=2)
