import errno
import json
import os

import pytest

from basicsr.utils.files import atomic_path, write_json


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
