import errno
import json
import os

import pytest

from basicsr.utils import files
from basicsr.utils.files import atomic_path, real_path, why_no_file, why_no_folder, write_json


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new folder" / "state.pth"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"content")
        assert temporary.suffix == ".pth"
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "state.pth"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_the_data_goes_to_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "state.pth"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable_text(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"image": "Größe", "psnr": 31.5})
    assert "Größe" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"image": "Größe", "psnr": 31.5}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"iter": 1})
    with pytest.raises(TypeError):
        write_json(path, {"iter": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"iter": 1}


def test_what_is_no_file_is_told_without_opening_it(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nothing").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    told = {
        "file": None,
        ".": "is a folder, not a file",
        "nowhere": "does not exist",
        "file/x": "does not exist",
        "nothing": "is a link to nothing",
        "circle": "cannot be looked at (Too many levels of symbolic links)",
        "pipe": "is a pipe or a device, not a file",
        "n" * 300: "cannot be looked at (File name too long)",
        "a\0b": "does not exist",
    }
    assert {name: why_no_file(tmp_path / name) for name in told} == told
    assert why_no_folder(tmp_path) is None and why_no_folder(tmp_path / "pipe") == "is not a folder"
    assert why_no_folder(tmp_path / "nowhere") == "does not exist"
    assert real_path(tmp_path / "circle") == real_path(tmp_path) / "circle"


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_stays(tmp_path):
    left = tmp_path / ".tmp-0123.pth"
    left.write_bytes(b"half of a file")
    with atomic_path(tmp_path / "state.pth") as living:
        living.write_bytes(b"half of a file")
        files._remove_abandoned.cache_clear()  # as if another process began to write
        write_json(tmp_path / "metrics.json", {})
        assert living.exists() and not left.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.json", "state.pth"]
