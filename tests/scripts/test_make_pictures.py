"""scripts/make_pictures.py on the runs of a tiny sweep: HR, bicubic, full precision and one method at one bit width."""

import json

import cv2
import numpy as np
import pytest

from basicsr.reporting.crops import LABEL, SIZES, TILE, most_different, tile, wrapped
from basicsr.sweep.pictures import Place
from tests import tiny, tiny_grid

pytestmark = pytest.mark.slow

IMAGE = sorted((tiny.ROOT / "datasets/demo/val/HR").iterdir())[0]
TALL = TILE + LABEL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def pictures(load_script, folder, capsys, monkeypatch):
    """Call the script in this process on a sweep that has trained MinMax, not 2DQuant; return exit status and what it prints."""
    monkeypatch.chdir(folder)
    file = folder / "grid.yml"
    if not file.exists():
        tiny_grid.write(folder)
        sweep = load_script("sweep").main
        assert sweep(["-grid", str(file), "--root", str(folder), "--only", "*_MinMax_*"]) == 0
    main = load_script("make_pictures").main

    def call(*arguments):
        status = main(["-grid", str(file), "--root", str(folder), "--out", str(folder / "out"), *arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_of_what_is_trained(pictures, folder, size):
    status, output = pictures("--crops", f"demo/{IMAGE.stem}:8,16", "--size", str(size))
    assert status == 0, output
    assert "SwinIR-tiny_x4: 1 of 2 runs are not in experiments/ and left out; sweep.py --train-only" in output
    picture = cv2.imread(str(folder / "out/SwinIR-tiny_x4.png"))
    assert picture.shape == (TALL, 4 * TILE, 3)
    hr = cv2.imread(str(IMAGE), cv2.IMREAD_COLOR)[8 : 8 + size, 16 : 16 + size]
    zoom = TILE // size
    assert np.array_equal(picture[:TILE, :TILE], hr.repeat(zoom, 0).repeat(zoom, 1))
    shown = [picture[:TILE, TILE * i : TILE * (i + 1)] for i in range(4)]
    assert all(not np.array_equal(shown[i], shown[j]) for i in range(4) for j in range(i))


def test_the_psnr_is_that_of_the_evaluation(pictures, folder):
    _, output = pictures("--crops", f"demo/{IMAGE.stem}")
    record = json.loads((folder / "results/sweeps/tiny/runs/SwinIR-tiny_MinMax_x4_bit4.json").read_text())
    psnr = record["metrics"]["datasets"]["demo"]["images"][IMAGE.stem]["psnr"]
    assert f"SwinIR-tiny_MinMax_x4_bit4: {psnr:.2f} dB" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crops", "demo"], "The crop 'demo' must be <dataset>/<image>"),
        (["--crops", "demo/absent"], "There is no image 'absent' in a test set 'demo'"),
        (["--crops", "Set5/baby"], "Its test sets: demo."),
        (["--crops", f"demo/{IMAGE.stem}:9000,0"], "leaves the image"),
        (["--bits", "2"], "SwinIR-tiny_x4; MinMax, 2DQuant; 4."),
        (["--methods", "minmax"], "has no runs with these networks"),
    ],
)
def test_what_cannot_be_shown_is_named(pictures, arguments, message):
    status, output = pictures(*arguments)
    assert status == 2 and message in output and "Traceback" not in output


def test_places():
    assert Place.parse("Set5/butterfly:80,150", 48) == Place("Set5", "butterfly", 48, (80, 150))
    assert Place.parse("Set5/butterfly", 64).corner is None


def test_the_crop_that_differs_most():
    images = np.zeros((2, 200, 300, 3), np.uint8)
    images[1, 100:164, 200:264] = 255
    assert most_different(images, 64) == (100, 200)


def test_tiles_are_wrapped_and_filled_up():
    tiles = [tile(np.full((64, 64, 3), 10 * i, np.uint8), 0, 0, 64, "label", "value") for i in range(3)]
    sheet = wrapped(tiles, 2)
    assert sheet.shape == (2 * TALL, 2 * TILE, 3)
    assert np.array_equal(sheet[TALL:, :TILE], tiles[2]) and (sheet[TALL:, TILE:] == 255).all()
    assert tiles[0][TILE:].min() < 128  # text
