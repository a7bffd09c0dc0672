import re

import cv2
import numpy as np
import pytest

from basicsr.utils.image import read_image, write_image
from basicsr.utils.resize import crop_to_multiple, downscale_image
from tests.lmdb_folders import make_lmdb

pytestmark = pytest.mark.slow

SIZES = {"a": (25, 31), "b": (24, 36)}


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for name, size in SIZES.items():
        write_image(tmp_path / "photos" / f"{name}.png", random.integers(0, 256, (*size, 3), dtype=np.uint8))
    return tmp_path / "photos"


@pytest.fixture
def layout(photos, tmp_path):
    """A folder as the script lays it out, made without it."""
    for file in photos.iterdir():
        image = read_image(file)
        write_image(tmp_path / "set" / "HR" / file.name, image)
        for scale in (2, 4):
            lr = downscale_image(crop_to_multiple(image, scale), scale)
            write_image(tmp_path / "set" / "LR_bicubic" / f"X{scale}" / f"{file.stem}x{scale}.png", lr)
    return tmp_path / "set"


def _contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_lays_out_a_database_as_the_folder_that_it_was_made_of(prepare_data, photos, tmp_path):
    database = make_lmdb(photos, tmp_path / "photos.lmdb")
    for source, more in ((photos, ()), (database, ()), (database, ("--link",))):
        prepare_data("--hr", source, "--out", tmp_path / f"{source.name}{len(more)}", "--scales", 2, *more)
    for name in ("photos.lmdb0", "photos.lmdb1"):
        for file in (tmp_path / "photos0").rglob("*.png"):
            other = tmp_path / name / file.relative_to(tmp_path / "photos0")
            np.testing.assert_array_equal(read_image(other), read_image(file))


def test_lays_out_a_folder_and_finds_it_in_order(prepare_data, photos, layout, tmp_path):
    before = _contents(photos)
    printed = prepare_data("--hr", photos, "--out", tmp_path / "out", "--scales", 2, 4)
    assert "is ready for the scale factors [2, 4]" in printed
    assert _contents(tmp_path / "out") == _contents(layout)
    assert _contents(photos) == before
    assert "is in order" in prepare_data("--check", tmp_path / "out")


def test_runs_outside_the_checkout_with_several_processes(script_command, photos, layout, tmp_path):
    arguments = ["--hr", photos, "--out", tmp_path / "out", "--scales", 2, 4, "--workers", 2]
    result = script_command("prepare_data", *arguments)
    assert result.returncode == 0, result.stderr
    assert _contents(tmp_path / "out") == _contents(layout)


def test_continues_where_it_was_stopped_and_overwrites_nothing(prepare_data, photos, layout):
    lost = layout / "LR_bicubic" / "X4" / "ax4.png"
    kept = layout / "LR_bicubic" / "X2" / "bx2.png"
    expected = _contents(layout)
    lost.unlink()
    (layout / "HR" / ".tmp-0123.png").write_bytes(b"half an image")
    time_of_kept = kept.stat().st_mtime_ns
    prepare_data("--hr", photos, "--out", layout, "--scales", 2, 4)
    (layout / "HR" / ".tmp-0123.png").unlink()
    assert _contents(layout) == expected
    assert kept.stat().st_mtime_ns == time_of_kept


def test_links_instead_of_copies(prepare_data, photos, tmp_path):
    prepare_data("--hr", photos, "--out", tmp_path / "out", "--scales", 2, "--link")
    assert (tmp_path / "out" / "HR" / "a.png").resolve() == photos / "a.png"
    prepare_data("--check", tmp_path / "out")


def test_works_in_place(prepare_data, photos, tmp_path):
    photos.rename(tmp_path / "HR")
    before = _contents(tmp_path / "HR")
    prepare_data("--hr", tmp_path / "HR", "--out", tmp_path, "--scales", 3)
    assert _contents(tmp_path / "HR") == before
    prepare_data("--check", tmp_path)


def test_other_images_in_the_target_are_left_alone(prepare_data, photos, layout):
    write_image(layout / "HR" / "a.png", np.zeros((8, 8, 3), np.uint8))
    before = _contents(layout)
    assert "exists and differs" in prepare_data("--hr", photos, "--out", layout, "--scales", 2, 4, code=1)
    (layout / "HR" / "foreign.png").write_bytes(b"")
    assert "such as foreign.png" in prepare_data("--hr", photos, "--out", layout, code=1)
    (layout / "HR" / "foreign.png").unlink()
    assert _contents(layout) == before


def test_unusable_images_are_named_and_the_others_done(prepare_data, photos, tmp_path):
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:300])
    (photos / "empty.png").touch()
    write_image(photos / "tiny.png", np.zeros((1, 9, 3), np.uint8))
    printed = prepare_data("--hr", photos, "--out", tmp_path / "out", "--scales", 2, code=1)
    assert "broken.png' is damaged" in printed
    assert "empty.png' is empty" in printed
    assert "tiny.png' has 9x1 pixels, too few for scale factor 2" in printed
    assert "Problems found: 3." in printed
    assert (tmp_path / "out" / "LR_bicubic" / "X2" / "bx2.png").exists()


def test_an_image_too_small_for_one_scale_leaves_nothing(prepare_data, photos, tmp_path):
    write_image(photos / "small.png", np.zeros((3, 9, 3), np.uint8))
    printed = prepare_data("--hr", photos, "--out", tmp_path / "out", "--scales", 2, 3, 4, code=1)
    assert "small.png' has 9x3 pixels, too few for scale factor 4; it is left out." in printed
    assert sorted(_contents(tmp_path / "out")) == sorted(
        ["HR/a.png", "HR/b.png", *(f"LR_bicubic/X{scale}/{name}x{scale}.png" for scale in (2, 3, 4) for name in "ab")]
    )
    prepare_data("--check", tmp_path / "out")


def test_images_of_one_stem_keep_apart(prepare_data, photos, tmp_path, caplog):
    write_image(photos / "a.bmp", read_image(photos / "a.png")[::-1])
    prepare_data("--hr", photos, "--out", tmp_path / "out", "--scales", 2)
    assert "a.bmp' has the name of another image; its result is named 'a_bmp'" in caplog.text
    assert sorted(_contents(tmp_path / "out" / "HR")) == ["a.png", "a_bmp.bmp", "b.png"]
    prepare_data("--check", tmp_path / "out")
    assert "is ready" in prepare_data("--hr", photos, "--out", tmp_path / "out", "--scales", 2)


def test_each_folder_below_becomes_a_data_set(prepare_data, photos, layout, tmp_path):
    source = tmp_path / "tree"
    (source / "deep").mkdir(parents=True)
    photos.rename(source / "deep" / "photos")
    refused = prepare_data("--hr", source, "--out", tmp_path / "out", code=1)
    assert "its subfolders hold 2, such as" in refused and "Give --recursive to make a data set of each." in refused
    assert not (tmp_path / "out").exists()
    write_image(source / "c.jfif", np.full((8, 8, 3), 9, np.uint8))
    out = source / "out"  # its images are no sources of a second start
    for _ in range(2):
        prepare_data("--hr", source, "--out", out, "--scales", 2, 4, "--recursive")
        assert _contents(out / "deep/photos") == _contents(layout)
        assert sorted(_contents(out)) == sorted(
            [
                *("HR/c.jfif", "LR_bicubic/X2/cx2.png", "LR_bicubic/X4/cx4.png"),
                *(f"deep/photos/{file}" for file in _contents(layout)),
            ]
        )
    assert "is in order" in prepare_data("--check", out, "--recursive")
    (out / "deep/photos/LR_bicubic/X2/bx2.png").unlink()
    assert "has no LR image in X2" in prepare_data("--check", out, "--recursive", code=1)
    assert "no folder named HR" in prepare_data("--check", source / "deep", "--recursive", code=1)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_unusable_folders_are_named(prepare_data, tmp_path, name):
    (tmp_path / "empty").mkdir()
    assert f"{name}'" in prepare_data("--hr", tmp_path / name, "--out", tmp_path / "out", code=1)
    assert "HR' does not exist" in prepare_data("--check", tmp_path / name, code=1)


def test_an_output_that_cannot_be_written_is_named(prepare_data, photos, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in prepare_data("--hr", photos, "--out", tmp_path / "file" / "out", code=1)


@pytest.mark.parametrize(
    "arguments", [[], ["--hr", "x"], ["--check", "x", "--out", "y"], ["--check", "x", "--scales", "1"]]
)
def test_unclear_commands_are_refused(prepare_data, arguments):
    assert "usage:" in prepare_data(*arguments, code=2)


def test_check_tells_every_problem(prepare_data, layout):
    x2 = layout / "LR_bicubic" / "X2"
    a = read_image(layout / "HR" / "a.png")
    write_image(layout / "HR" / "c.png", a)
    write_image(x2 / "cx2.png", cv2.resize(a[:24, :30], (15, 12), interpolation=cv2.INTER_CUBIC))
    write_image(x2 / "ax2.png", a)
    (x2 / "bx2.png").write_bytes(b"")
    write_image(x2 / "extrax2.png", a)
    lines = [line for line in prepare_data("--check", layout, code=1).splitlines() if "'" in line]
    expected = [
        r"HR image '.*c\.png' has no LR image in X4",
        r"LR image '.*extrax2\.png' has no HR image",
        r"LR image '.*ax2\.png' has 31x25 pixels; its HR image needs 15x12",
        r"The image '.*bx2\.png' is empty",
        r"LR image '.*cx2\.png' is not Matlab's bicubic reduction: \d+\.\d% of the values differ, by at most \d+ \(\d+\.\d dB\)",
        r"HR images 'a\.png' and 'c\.png' are the same picture",
    ]
    for pattern in expected:
        assert sum(bool(re.match(pattern, line)) for line in lines) == 1, (pattern, lines)
    assert len(lines) == len(expected)


def test_check_needs_lr_images(prepare_data, photos, tmp_path):
    photos.rename(tmp_path / "HR")
    assert "has no LR images" in prepare_data("--check", tmp_path, code=1)


def test_a_rounding_unlike_matlabs_is_found(prepare_data, layout):
    a = crop_to_multiple(read_image(layout / "HR" / "a.png"), 4)
    lr = downscale_image(a, 4)
    lr[0, 0, 0] ^= 1
    write_image(layout / "LR_bicubic" / "X4" / "ax4.png", lr)
    assert "by at most 1" in prepare_data("--check", layout, code=1)


def test_the_benchmarks_are_in_order(prepare_data, shared):
    assert "is in order" in prepare_data("--check", shared / "data" / "benchmark" / "Set5")
