"""Folders of images: what is found, what is left out and said, and names that would collide."""

import logging
from pathlib import Path

import pytest

from basicsr.utils.errors import DataError
from basicsr.utils.image_folders import distinct_names, image_files


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_image_files_are_sorted_and_nothing_else(tmp_path):
    for name in ("b.png", "a.JPG", "c.webp", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in image_files(tmp_path)] == ["a.JPG", "b.png", "c.webp"]


def test_unusable_folders_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"missing' does not exist"):
        image_files(tmp_path / "missing")
    with pytest.raises(DataError, match=r"file' is not a folder"):
        image_files(tmp_path / "file")
    with pytest.raises(DataError, match="holds no image"):
        image_files(tmp_path)


def test_images_of_subfolders_are_told_or_taken(tmp_path, caplog):
    make(tmp_path, "b/c.png", "b/d/e.jfif", "b/.hidden/f.png", "out/c_x2.png", "b/notes.txt")
    with pytest.raises(
        DataError, match=r"itself, but its subfolders hold 3, such as '.*b/c\.png'\. Give the folder that"
    ):
        image_files(tmp_path)
    with pytest.raises(DataError, match=r"its subfolders hold 2, .*Give --recursive\."):
        image_files(tmp_path, leave_out=tmp_path / "out", remedy="Give --recursive.")
    found = image_files(tmp_path, recursive=True, leave_out=tmp_path / "out")
    assert [str(file.relative_to(tmp_path)) for file in found] == ["b/c.png", "b/d/e.jfif"]
    make(tmp_path, "a.gif")
    with caplog.at_level(logging.WARNING):
        assert image_files(tmp_path, remedy="Give --recursive.") == [tmp_path / "a.gif"]
    assert "3 images in subfolders, such as" in caplog.text and "Give --recursive." in caplog.text


def test_images_of_other_formats_are_not_left_out_without_a_word(tmp_path, caplog):
    make(tmp_path, "1.heic", "2.AVIF", "3.tga", "4.jp2", "notes.txt")
    with pytest.raises(DataError, match=r"no image that is read here, but '1\.heic', '2\.AVIF', '3\.tga' and 1 more"):
        image_files(tmp_path)
    make(tmp_path, "5.png")
    with caplog.at_level(logging.WARNING):
        assert image_files(tmp_path) == [tmp_path / "5.png"]
    assert "'1.heic', '2.AVIF', '3.tga' and 1 more in" in caplog.text and "notes" not in caplog.text


@pytest.mark.parametrize("suffix", ["dib", "mpo", "hif", "JPX", "pfm", "dng", "mov", "psb", "jxr"])
def test_each_format_that_is_left_out_is_told(tmp_path, suffix):
    make(tmp_path, f"a.{suffix}")
    with pytest.raises(DataError, match=rf"no image that is read here, but 'a\.{suffix}'\. Convert to PNG"):
        image_files(tmp_path)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png"], ["a_jpg", "a"]),
        (["a.jpeg", "a.jpg"], ["a_jpeg", "a_jpg"]),
        (["x/a.jpg", "y/a.png"], ["a", "a"]),
        (["a.jpg", "a.png", "a_jpg.png"], ["a_jpg_2", "a", "a_jpg"]),
        (["a.jpg", "a.png", "a_jpg.bmp"], ["a_jpg_2", "a", "a_jpg"]),
    ],
)
def test_names_of_results_are_distinct(files, names, caplog):
    with caplog.at_level(logging.WARNING):
        found = distinct_names(map(Path, files), lambda _: ".png")
    assert [found[Path(file)] for file in files] == names
    renamed = [file for file, name in zip(files, names, strict=True) if Path(file).stem != name]
    assert len(caplog.records) == len(renamed)
    assert all(f"'{file}' has the name of another image" in caplog.text for file in renamed)
