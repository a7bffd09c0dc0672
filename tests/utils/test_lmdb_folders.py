"""Images out of LMDB folders: the pixels of the files that they were made of, and a sentence for each fault."""

import logging
import multiprocessing
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.image import read_image, write_image
from basicsr.utils.image_folders import image_files
from tests.lmdb_folders import change, make_lmdb

NAMES = ("b", "a", "0001_s002")


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "HR" / f"{name}.png", random.integers(0, 256, (9 + number, 8, 3), dtype=np.uint8))
    write_image(tmp_path / "HR/deep.png", random.integers(0, 65536, (5, 4, 3), dtype=np.uint16))
    return tmp_path / "HR"


@pytest.fixture
def folder(files, tmp_path):
    return make_lmdb(files, tmp_path / "HR.lmdb")


def test_a_database_reads_as_the_folder_that_it_was_made_of(files, folder):
    own = image_files(files)
    found = image_files(folder)
    assert [path.name for path in found] == [path.name for path in own] == [
        "0001_s002.png", "a.png", "b.png", "deep.png",
    ]  # fmt: skip
    for path, file in zip(found, own, strict=True):
        pixels = read_image(path)
        assert pixels.dtype == read_image(file).dtype
        np.testing.assert_array_equal(pixels, read_image(file))


def _mean(path):
    return float(read_image(path).mean())


def test_threads_and_forked_processes_read_too(folder):
    paths = image_files(folder)
    own = [_mean(path) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_mean, paths * 5)) == own * 5
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_mean, paths) == own


def test_a_folder_that_is_made_anew_is_read_anew(files, folder):
    before = read_image(folder / "a.png")
    shutil.rmtree(folder)
    write_image(files / "a.png", 255 - before)
    make_lmdb(files, folder)
    np.testing.assert_array_equal(read_image(folder / "a.png"), 255 - before)


def test_images_that_the_list_does_not_name_are_left_out_and_said(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    change(folder, other=b"x")
    assert len(image_files(folder)) == 4
    assert "holds 5 images, of which meta_info.txt names 4" in caplog.text


FAULTS = {
    "no data": (lambda folder: (folder / "data.mdb").unlink(), "holds no data.mdb"),
    "no list": (lambda folder: (folder / "meta_info.txt").unlink(), "holds no meta_info.txt"),
    "fewer images": (lambda folder: change(folder, a=None), "names 4 images, but data.mdb holds 3"),
    "no database": (lambda folder: (folder / "data.mdb").write_bytes(b"\0" * 9999), "not an LMDB file"),
    "an empty file": (lambda folder: (folder / "data.mdb").write_bytes(b""), "cannot be read"),
    "half a copy": (
        lambda folder: (folder / "data.mdb").write_bytes((folder / "data.mdb").read_bytes()[:-4096]),
        "it was copied in part",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_damaged_folder_is_told(folder, kind):
    damage, words = FAULTS[kind]
    damage(folder)
    with pytest.raises(DataError) as error:
        image_files(folder)
    assert words in str(error.value) and "HR.lmdb" in str(error.value), error.value


def test_a_damaged_image_is_told(folder):
    change(folder, a=b"no image", b=b"", other=None)
    for name, words in (("a", "is damaged or is not an image"), ("b", "is empty"), ("c", "no image under the key 'c'")):
        with pytest.raises(DataError, match=words):
            read_image(folder / f"{name}.png")
    with pytest.raises(DataError, match="'.*gone.lmdb' does not exist"):
        read_image(folder.with_name("gone.lmdb") / "a.png")
    with pytest.raises(DataError, match="'.*gone.lmdb' does not exist"):
        image_files(folder.with_name("gone.lmdb"))


def test_a_missing_package_is_told(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(OptionsError, match=r"package 'lmdb' is needed for folders that end in \.lmdb.*\.\[lmdb\]"):
        image_files(folder)
