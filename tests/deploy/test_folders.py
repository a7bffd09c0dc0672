"""Folders of pictures are worked through to the end: none is lost, none is overwritten, each failure is told."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from basicsr import upscale
from basicsr.deploy.folders import Outcome, output_files, upscale_files
from basicsr.deploy.upscaling import enlarger
from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image, write_image
from tests import tiny


class Counting(nn.Module):
    """Repeats each pixel and counts the pictures."""

    scale, size_multiple = 2, 1

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture
def network():
    return Counting()


def work(network, source, folder, **options):
    return upscale_files(source, folder, enlarger(network, torch.device("cpu"), None, 0), 2, **options)


def pixels(seed, height=5, width=7):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tree(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_inputs_are_never_overwritten(tmp_path):
    names = ["a.png", "a_x2.png"]
    with pytest.raises(DataError, match="would overwrite"):
        output_files([tmp_path / name for name in names], tmp_path, 2)
    outputs = output_files([tmp_path / "a.jpg", tmp_path / "b.tif", tmp_path / "c.avif"], tmp_path, 2)
    assert [path.name for path in outputs.values()] == ["a_x2.png", "b_x2.tif", "c_x2.png"]


class Pooling(Counting):
    """Cannot work on less than 7 pixels a side, as networks of others."""

    def forward(self, x):
        nn.functional.max_pool2d(x, 7)
        return super().forward(x)


def test_a_picture_too_small_for_a_network_stops_no_other(tmp_path, caplog):
    for name, side in (("a", 3), ("b", 9), ("c", 1)):
        write_image(tmp_path / f"in/{name}.png", pixels(0, side, 9))
    assert work(Pooling(), tmp_path / "in", tmp_path / "out") == Outcome(enlarged=1, failed=2)
    assert tree(tmp_path / "out") == ["b_x2.png"]
    assert "a.png' cannot be enlarged: Pooling cannot enlarge an image of 9x3 pixels: " in caplog.text
    assert "Give larger images if it asks for more" in caplog.text


def test_pictures_of_one_stem_keep_apart(tmp_path, network):
    for seed, name in enumerate(("a.png", "a.bmp", "a.jpg", "a.jfif")):
        write_image(tmp_path / "in" / name, pixels(seed))
    assert work(network, tmp_path / "in", tmp_path / "out") == Outcome(enlarged=4)
    assert tree(tmp_path / "out") == ["a_jfif_x2.png", "a_jpg_x2.png", "a_x2.bmp", "a_x2.png"]
    for source, result in (("a.png", "a_x2.png"), ("a.bmp", "a_x2.bmp"), ("a.jpg", "a_jpg_x2.png")):
        expected = read_image(tmp_path / "in" / source).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(read_image(tmp_path / "out" / result), expected)


def test_a_tree_is_kept_and_the_results_in_it_are_no_inputs(tmp_path, network):
    for seed, name in enumerate(("a.png", "x/a.png", "x/y/b.jpg")):
        write_image(tmp_path / name, pixels(seed))
    for _ in range(2):
        assert work(network, tmp_path, tmp_path / "out", recursive=True) == Outcome(enlarged=3)
        assert tree(tmp_path / "out") == ["a_x2.png", "x/a_x2.png", "x/y/b_x2.png"]
    expected = pixels(1).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "out/x/a_x2.png"), expected)


def test_what_is_there_is_skipped_on_request(tmp_path, network):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(tmp_path / "in" / name, pixels(seed))
    write_image(tmp_path / "out/b_x2.png", pixels(9))
    before = (tmp_path / "out/b_x2.png").read_bytes()
    assert work(network, tmp_path / "in", tmp_path / "out", skip_existing=True) == Outcome(enlarged=2, skipped=1)
    assert network.calls == 2 and (tmp_path / "out/b_x2.png").read_bytes() == before
    assert work(network, tmp_path / "in", tmp_path / "out", skip_existing=True) == Outcome(skipped=3)
    assert work(network, tmp_path / "in", tmp_path / "out") == Outcome(enlarged=3)


def test_results_go_into_a_folder_of_their_own(tmp_path, network):
    write_image(tmp_path / "in/a.png", pixels(0))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "file").touch()
    for folder, words in (
        ("in", "is the folder of the inputs, where the next start would enlarge the results again"),
        ("link", "is the folder of the inputs"),
        ("file", "is not a folder. Give a folder"),
        ("out.png", "is called like a picture, but is to be a folder"),
    ):
        with pytest.raises(DataError, match=words):
            work(network, tmp_path / "in", tmp_path / folder)
    assert network.calls == 0 and tree(tmp_path) == ["file", "in/a.png"]
    assert work(network, tmp_path / "in/a.png", tmp_path / "in") == Outcome(enlarged=1)
    assert work(network, tmp_path / "in", tmp_path / "in/out", recursive=True) == Outcome(enlarged=2)


def test_names_that_are_too_long_stop_no_other_picture(tmp_path, network, caplog):
    for name in ("a" * 251, "b" * 248):
        write_image(tmp_path / f"in/{name}.png", pixels(0))
    for _ in range(2):
        assert work(network, tmp_path / "in", tmp_path / "out", skip_existing=True).failed == 1
    assert tree(tmp_path / "out") == ["b" * 248 + "_x2.png"] and "has more than 255 bytes" in caplog.text


def test_a_picture_that_its_format_cannot_hold_is_told_before_it_is_computed(tmp_path, network, caplog):
    write_image(tmp_path / "in/a.webp", pixels(0, 2, 8192))
    write_image(tmp_path / "in/b.webp", pixels(1, 2, 8191))
    write_image(tmp_path / "in/c.png", pixels(2))
    write_image(tmp_path / "in/d.png", pixels(3))
    (tmp_path / "out/c_x2.png").mkdir(parents=True)
    assert work(network, tmp_path / "in", tmp_path / "out") == Outcome(enlarged=2, failed=2)
    assert network.calls == 2 and tree(tmp_path / "out") == ["b_x2.webp", "d_x2.png"]
    assert "a_x2.webp' would have 16384x4 pixels, but .webp holds at most 16383 on a side. Use .png" in caplog.text
    assert "c_x2.png' cannot be written, since a folder has this name" in caplog.text


def test_a_picture_that_needs_too_much_memory_is_told(tmp_path, network, caplog, monkeypatch):
    def forward(x):
        if x.shape[-1] == 7:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return torch.zeros(1, 3, 2 * x.shape[-2], 2 * x.shape[-1])

    monkeypatch.setattr(network, "forward", forward)
    write_image(tmp_path / "in/a.png", pixels(0))
    write_image(tmp_path / "in/b.png", pixels(0, 5, 8))
    assert work(network, tmp_path / "in", tmp_path / "out") == Outcome(enlarged=1, failed=1)
    assert "does not suffice to enlarge" in caplog.text and "14x10 pixels. Give a smaller --tile" in caplog.text


@pytest.mark.slow
def test_a_folder_goes_on_after_pictures_that_fail(tmp_path, capfd):
    model = tiny.save_network(tmp_path / "edsr.pth", 2, "EDSR")
    source = tmp_path / "in"
    write_image(source / "a.png", pixels(0))
    (source / "b.png").write_bytes(b"no picture")
    write_image(source / "c.webp", pixels(1, 4, 8200))
    write_image(source / "d.tif", pixels(2).astype(np.uint16) * 257)
    write_image(source / "sub/e.jfif", pixels(3))
    before = {path: path.read_bytes() for path in source.rglob("*.*")}
    command = ["-i", str(source), "-o", str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
    assert upscale.main(command) == upscale.FAILED_PICTURES
    told = capfd.readouterr().err
    assert "1 images in subfolders" in told and "--recursive" in told and "16400x8 pixels" in told
    assert "2 pictures enlarged, 0 there already, 2 failed." in told and "Traceback" not in told
    assert tree(tmp_path / "out") == ["a_x2.png", "d_x2.tif"]
    assert upscale.main([*command, "--recursive", "--skip_existing"]) == upscale.FAILED_PICTURES
    assert "1 pictures enlarged, 2 there already, 2 failed." in capfd.readouterr().err
    assert tree(tmp_path / "out") == ["a_x2.png", "d_x2.tif", "sub/e_x2.png"]
    assert before == {path: path.read_bytes() for path in source.rglob("*.*")}
    assert cv2.imread(str(tmp_path / "out/d_x2.tif"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
