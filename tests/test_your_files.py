"""Every cell of the tables of pictures in docs/your-files.md is what happens, in upscale.py, prepare_data.py and the data sets."""

import logging
import re
from functools import partial

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from basicsr.data import build_dataset
from basicsr.deploy.folders import Outcome, upscale_files
from basicsr.deploy.upscaling import enlarger
from basicsr.utils.image import image_to_tensor, read_image
from basicsr.utils.image_bmp import bmp_with_alpha
from basicsr.utils.resize import downscale_image
from tests.profiles import SRGB, with_profile
from tests.tiny import ROOT

ROWS, COLUMNS = np.mgrid[:12, :16]
COLOUR = np.stack([ROWS * 20, COLUMNS * 15, (ROWS + COLUMNS) * 9], axis=2).astype(np.uint8)
ALPHA = ((ROWS + COLUMNS) % 2 * 200 + 50).astype(np.uint8)
DEEP = COLOUR.astype(np.uint16) * 257 + 19
INDEXED = PIL.Image.fromarray(COLOUR).quantize(16)
INDEXED_COLOUR = np.asarray(INDEXED.convert("RGB"))
TOLERANCE = {"JPEG": 12}  # of its compression
SUFFIXES = {"PNG": (".png",), "TIFF": (".tif", ".tiff"), "WebP": (".webp",), "JPEG": (".jpg", ".jfif", ".jpe"), "BMP": (".bmp",), "GIF": (".gif",)}  # fmt: skip
TURN_RIGHT = 6


def by_pillow(image, path, **options):
    if path.suffix == ".webp":
        options |= {"lossless": True, "exact": True}
    if path.suffix in SUFFIXES["JPEG"]:
        options |= {"quality": 100, "subsampling": 0}
    image.save(path, **options)


def by_opencv(pixels, path):
    done, encoded = cv2.imencode(path.suffix, pixels)
    assert done
    path.write_bytes(encoded.tobytes())


def write(feature, path):
    """Write a picture of a kind; return its colours, upright."""
    exif = PIL.Image.Exif()
    exif[0x0112] = TURN_RIGHT
    colour = INDEXED if path.suffix == ".gif" else PIL.Image.fromarray(COLOUR)
    transparent = PIL.Image.fromarray(np.dstack([COLOUR, ALPHA]))
    cases = {
        "grey": (partial(by_pillow, PIL.Image.fromarray(COLOUR[..., 0])), COLOUR[..., [0, 0, 0]]),
        "palette": (partial(by_pillow, INDEXED), INDEXED_COLOUR),
        "alpha": (partial(by_pillow, transparent), COLOUR),
        "16 bits": (partial(by_opencv, DEEP[..., ::-1]), DEEP),
        "orientation tag": (partial(by_pillow, colour, exif=exif), np.rot90(COLOUR, -1)),
        "colour profile": (partial(by_pillow, colour, icc_profile=SRGB), COLOUR),
        "several pages, animation": (partial(by_pillow, colour, save_all=True, append_images=[colour.rotate(180)]), COLOUR),
    }  # fmt: skip
    save, expected = cases[feature]
    if path.suffix == ".gif":
        expected = INDEXED_COLOUR if feature != "grey" else expected
    if (path.suffix, feature) == (".bmp", "alpha"):  # others write 24 bits, or do not say that there is alpha
        data = bmp_with_alpha(np.dstack([COLOUR[..., ::-1], ALPHA]))
        save = lambda path: path.write_bytes(data)  # noqa: E731
    if (path.suffix, feature) == (".gif", "alpha"):
        save = partial(by_pillow, INDEXED, transparency=INDEXED.getpixel((0, 0)))
    if path.suffix in SUFFIXES["JPEG"] and feature.startswith("several"):
        save = partial(by_pillow, colour, format="MPO", save_all=True, append_images=[colour.rotate(180)])
    save(path)
    if feature == "colour profile" and path.suffix in (".bmp", ".gif"):  # whose profiles Pillow does not write
        path.write_bytes(with_profile(path.read_bytes(), SRGB))
    return expected


def table_of(heading):
    """Return the cells of the first table below a heading of the page."""
    text = (ROOT / "docs/your-files.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return cells[0], cells[2:]


def cells():
    head, rows = table_of("Pictures in upscale.py")
    assert [re.split(r"[,\s]", row[0])[0] for row in rows] == list(SUFFIXES)
    for row in rows:
        name = re.split(r"[,\s]", row[0])[0]
        for feature, cell in zip(head[1:], row[1:], strict=True):
            for suffix in SUFFIXES[name]:
                yield pytest.param(name, suffix, feature, cell, id=f"{suffix}-{feature}")


class Repeat(nn.Module):
    """Repeats each pixel."""

    scale, size_multiple = 2, 1

    def forward(self, x):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize(("name", "suffix", "feature", "cell"), list(cells()))
def test_a_cell_of_the_table(name, suffix, feature, cell, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    if cell == "does not exist":
        assert (name, feature) in NOT_THERE
        return
    assert (name, feature) not in NOT_THERE
    expected = write(feature, tmp_path / "in" / f"a{suffix}").repeat(2, 0).repeat(2, 1)
    with caplog.at_level(logging.WARNING):
        enlarge = enlarger(Repeat(), torch.device("cpu"), None, 0)
        assert upscale_files(tmp_path / "in", tmp_path / "out", enlarge, 2) == Outcome(enlarged=1)
    as_png = "as PNG" in cell or name in ("JPEG", "GIF")
    (result,) = (tmp_path / "out").iterdir()
    assert result.name == f"a_x2{'.png' if as_png else suffix}"
    pixels = cv2.imread(str(result), cv2.IMREAD_UNCHANGED)
    grey, alpha = feature == "grey" and cell.startswith("kept"), feature == "alpha"
    assert pixels.dtype == expected.dtype and pixels.shape[2:] == (() if grey else (4,) if alpha else (3,))
    shown = expected[..., 0] if grey else expected
    colours = pixels if grey else pixels[..., 2::-1]
    if name == "GIF" and alpha:  # hidden colours are those of their neighbours
        shown, colours = (values[pixels[..., 3] == 255] for values in (shown, colours))
    assert np.abs(colours.astype(int) - shown).max() <= TOLERANCE.get(name, 0)
    with PIL.Image.open(result) as written:
        kept = feature == "colour profile" and cell.startswith("kept")
        assert written.info.get("icc_profile") == (SRGB if kept else None)
        assert written.getexif().get(0x0112, 1) == 1
    pages, profile = "holds 2 pictures, pages or frames; only the first is read", "The colour profile is not kept"
    assert (pages in caplog.text) == (feature == "several pages, animation")
    assert ("with a warning" in cell) == (pages in caplog.text or profile in caplog.text)


NOT_THERE = {
    *(("WebP", feature) for feature in ("grey", "palette", "16 bits")),
    *(("JPEG", feature) for feature in ("palette", "alpha", "16 bits")),
    *(("BMP", feature) for feature in ("16 bits", "orientation tag", "several pages, animation")),
    *(("GIF", feature) for feature in ("16 bits", "orientation tag")),
}


@pytest.mark.parametrize(
    ("name", "suffix", "feature"),
    [pytest.param(*cell.values[:3], id=cell.id) for cell in cells() if cell.values[3] != "does not exist"],
)
def test_training_and_evaluation_read_the_same(name, suffix, feature, tmp_path, caplog, load_prepare_data):
    """What the second table says of a kind holds in prepare_data.py and in the data sets, with LR files and without."""
    told = {row[0]: row[1] for row in table_of("Pictures for training and evaluation")[1]}
    (tmp_path / "in").mkdir()
    expected = write(feature, tmp_path / "in" / f"a{suffix}")
    with caplog.at_level(logging.WARNING):
        assert load_prepare_data.main(["--hr", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--scales", "2", "--workers", "1"]) == 0  # fmt: skip
        options = {"type": "PairedImageDataset", "name": "a", "dataroot_gt": str(tmp_path / "out/HR")}
        (made,) = build_dataset(options, 2, "val", "datasets:val")
        (stored,) = build_dataset({**options, "dataroot_lq": str(tmp_path / "out/LR_bicubic/X2")}, 2, "val", "datasets:val")  # fmt: skip
    assert (tmp_path / "out/HR" / f"a{suffix}").read_bytes() == (tmp_path / "in" / f"a{suffix}").read_bytes()
    lr = read_image(tmp_path / "out/LR_bicubic/X2/ax2.png")
    assert lr.dtype == expected.dtype
    gt = read_image(tmp_path / "out/HR" / f"a{suffix}")
    assert gt.shape == expected.shape and np.abs(gt.astype(int) - expected).max() <= TOLERANCE.get(name, 0)
    np.testing.assert_array_equal(lr, downscale_image(gt, 2))
    for pair in (made, stored):
        assert torch.equal(pair["gt"], image_to_tensor(gt)) and torch.equal(pair["lq"], image_to_tensor(lr))
    assert (feature == "alpha") == ("alpha channel; it is dropped" in caplog.text)
    assert (feature == "several pages, animation") == ("only the first is read" in caplog.text)
    row = {"palette": "grey, palette", "grey": "grey, palette"}.get(feature, feature)
    assert told[row].startswith(SAID[row])


SAID = {
    "grey, palette": "They become three channels",
    "alpha": "It is dropped, with one warning",
    "16 bits": "Kept",
    "orientation tag": "Applied, to HR and LR alike",
    "colour profile": "The values are used as stored; the copied HR file keeps the profile",
    "several pages, animation": "The first picture is used, with a warning",
}


@pytest.fixture(scope="module")
def load_prepare_data():
    import prepare_data  # noqa: PLC0415 -- a script

    return prepare_data
