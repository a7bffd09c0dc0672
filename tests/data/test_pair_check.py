"""What is found out about pairs before any work begins."""

import logging

import cv2
import numpy as np
import PIL.Image
import pytest

from basicsr.data import pair_check
from basicsr.data.pair_check import check_pairs
from basicsr.data.pairs import find_pairs, lq_name
from basicsr.utils.errors import DataError
from basicsr.utils.image import write_image
from tests.lmdb_folders import change, make_lmdb


@pytest.fixture(params=["headers", "pixels"], autouse=True)
def _large_or_small(request, monkeypatch):
    """Each test once as in a set of thousands of files, of which only headers are read."""
    if request.param == "headers":
        monkeypatch.setattr(pair_check, "_DECODED", -1)


def check(hr, lr, scale=4, crop_size=None):
    check_pairs("mine", find_pairs(hr, lr, scale), scale, crop_size)


def test_pairs_that_fit_are_fine_also_where_hr_is_to_be_cropped(make_images, caplog):
    check(make_images("HR", (16, 20), (19, 23)), make_images("LR", (4, 5), (4, 5)))
    check(make_images("HR2", (16, 20)), None)
    assert not caplog.records


@pytest.mark.parametrize(("size", "other"), [((8, 10), 2), ((5, 6), 3), ((2, 2), 8)])
def test_lr_of_another_scale_is_told_with_the_scale(make_images, size, other):
    hr, lr = make_images("HR", (16, 20), (16, 20)), make_images("LR", size, size)
    with pytest.raises(DataError) as error:
        check(hr, lr)
    message = str(error.value)
    assert f"LR/a0.png' has {size[1]}x{size[0]} pixels" in message and "a0.png' of 20x16 needs 5x4" in message
    assert f"of scale factor {other}" in message and "1 more of the 2" in message


def test_a_single_wrong_pair_among_many_is_named(make_images):
    hr, lr = make_images("HR", *[(16, 20)] * 5), make_images("LR", (4, 5), (4, 5), (4, 5), (4, 4), (4, 5))
    with pytest.raises(DataError, match=r"a3\.png' has 4x4 pixels .*Check that the folder is of this scale") as error:
        check(hr, lr)
    assert "more of the" not in str(error.value)


def test_folders_that_are_exchanged(make_images):
    hr, lr = make_images("HR", (16, 16)), make_images("LR", (4, 4))
    with pytest.raises(DataError, match="exchange dataroot_gt and dataroot_lq"):
        check(lr, hr)
    marked = make_images("marked", (4, 4), template="a{}x4")
    with pytest.raises(DataError, match="other way round: exchange dataroot_gt and dataroot_lq"):
        check(marked, hr)


def test_names_of_another_scale(make_images):
    with pytest.raises(DataError, match="They match at scale factor 3: .*set 'scale' to 3"):
        check(make_images("HR", (16, 16)), make_images("LR", (5, 5), template="a{}x3"))


BROKEN = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "text": lambda whole: b"<html>404</html>",
    "header": lambda whole: whole[:8] + bytes(40) + whole[48:],
}


@pytest.mark.parametrize("side", ["HR", "LR"])
@pytest.mark.parametrize(
    ("kind", "suffix"), [(k, s) for k in BROKEN for s in (".png", ".jpg", ".webp") if (k, s) != ("header", ".jpg")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind, side, suffix):
    random = np.random.default_rng(0)
    for folder, length in (("HR", 64), ("LR", 16)):
        for name in "ab":
            write_image(tmp_path / folder / f"{name}{suffix}", random.integers(0, 256, (length, length, 3), np.uint8))
    file = tmp_path / side / f"b{suffix}"
    file.write_bytes(BROKEN[kind](file.read_bytes()))
    with pytest.raises(DataError, match=rf"{side}/b\{suffix}' is (damaged|empty)"):
        check(tmp_path / "HR", tmp_path / "LR")


def test_a_training_image_smaller_than_a_crop(make_images):
    hr = make_images("HR", (64, 64), (64, 47), (64, 30))
    check(hr, None, crop_size=None)
    with pytest.raises(DataError, match=r"a1\.png' has 44x64 pixels .* lq_size 12 at x4.*with 1 more of the 3"):
        check(hr, None, crop_size=12)
    with pytest.raises(DataError, match=r"a2\.png' has 28x64 pixels .* lq_size 11"):
        check(hr, None, crop_size=11)


def test_an_hr_image_smaller_than_the_scale(make_images):
    with pytest.raises(DataError, match=r"a1\.png' has 40x3 pixels, too few for the scale factor 4"):
        check(make_images("HR", (16, 16), (3, 40)), None)


def test_grey_or_alpha_in_one_of_a_pair_is_told(tmp_path, caplog):
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    alpha = np.dstack([colour, colour[..., :1]])
    for folder in ("HR", "LR"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "HR/a.png"), colour[..., 0])
    cv2.imwrite(str(tmp_path / "LR/a.png"), colour[:4, :4])
    cv2.imwrite(str(tmp_path / "HR/b.png"), colour)
    cv2.imwrite(str(tmp_path / "LR/b.png"), alpha[:4, :4])
    with caplog.at_level(logging.WARNING):
        check(tmp_path / "HR", tmp_path / "LR")
    messages = [record.getMessage() for record in caplog.records if "Data set mine" in record.getMessage()]
    assert len(messages) == 2
    assert "HR/a.png' is grey" in messages[0] and "1 of 2 pairs" in messages[0]
    assert "LR/b.png' has an alpha channel" in messages[1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_pictures_with_a_tag_of_their_orientation_are_measured_upright(tmp_path, suffix):
    for folder, (width, height) in (("HR", (32, 16)), ("LR", (8, 4))):
        (tmp_path / folder).mkdir()
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        PIL.Image.new("RGB", (width, height), (90, 60, 30)).save(tmp_path / folder / f"a{suffix}", exif=exif)
    check(tmp_path / "HR", tmp_path / "LR")
    write_image(tmp_path / "LR/a.png", np.zeros((8, 4, 3), np.uint8))
    for file in (tmp_path / "LR").glob("*[!g]"):
        if file.suffix != ".png":
            file.unlink()
    if suffix not in (".png", ".jpg"):
        check(tmp_path / "HR", tmp_path / "LR")  # upright, HR has 16 x 32 pixels


NAMES = {
    ("img_001_HR", "img_001_LR"): "{-HR}LR",
    ("img_001_HR", "img_001"): "{-_HR}",
    ("img_001_SRF_4_HR", "img_001_SRF_4_LR"): "{-HR}LR",
    ("a_hr", "a_lr"): "{-hr}lr",
    ("a_GT", "a_LQ"): "{-GT}LQ",
    ("a_HR", "ax4"): "{-_HR}x{scale}",
    ("a_HR", "a_LRx4"): "{-HR}LRx{scale}",
}


@pytest.mark.parametrize("names", NAMES)
def test_hr_names_with_a_suffix(tmp_path, names):
    hr, lr = names
    write_image(tmp_path / "HR" / f"{hr}.png", np.zeros((16, 16, 3), np.uint8))
    write_image(tmp_path / "LR" / f"{lr}.png", np.zeros((4, 4, 3), np.uint8))
    for template in (None, NAMES[names]):
        (pair,) = find_pairs(tmp_path / "HR", tmp_path / "LR", 4, template)
        assert (pair.name, pair.lq.stem) == names


def test_a_template_that_does_not_fit_a_name_gives_none():
    assert lq_name("b", "{-_HR}_LR", 4) == "" and lq_name("_HR", "{-_HR}_LR", 4) == ""
    assert lq_name("a_HR", "small/{-_HR}-{scale}", 4) == "small/a-4"


@pytest.mark.parametrize("damage", [False, True])
def test_databases_are_looked_at_in_the_same_way(make_images, tmp_path, monkeypatch, damage):
    hr, lr = make_images("HR", (160, 200), (200, 160)), make_images("LR", (40, 50), (50, 40))
    databases = make_lmdb(hr, tmp_path / "HR.lmdb"), make_lmdb(lr, tmp_path / "LR.lmdb")
    read, decoded = pair_check.load_pair, []
    monkeypatch.setattr(pair_check, "load_pair", lambda pair, scale: decoded.append(pair.name) or read(pair, scale))
    if damage:
        change(databases[0], a1=(hr / "a1.png").read_bytes()[:-40])
        with pytest.raises(DataError, match=r"HR.lmdb/a1\.png' is (damaged|cut off)"):
            check(*databases)
        return
    check(*databases)
    assert decoded == ([] if pair_check._DECODED < 0 else ["a0", "a1"])
    with pytest.raises(DataError, match=r"HR.lmdb/a0\.png' has 200x160 pixels .* lq_size 41 at x4"):
        check(*databases, crop_size=41)
