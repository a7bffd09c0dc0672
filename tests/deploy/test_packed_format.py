"""A file that is cut off, edited or of another kind is refused; metadata tell what it is."""

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from basicsr.deploy import packed_format
from basicsr.deploy.packed_file import load_packed
from basicsr.deploy.packed_format import FORMAT, is_packed
from basicsr.utils.errors import CheckpointError


def test_a_packed_file_is_recognised(packed, tmp_path):
    assert is_packed(packed)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    assert not any(is_packed(tmp_path / name) for name in ("other.safetensors", "noise.safetensors", "absent"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_is_cut_off_is_refused(packed, tmp_path, share):
    content = packed.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"cut off, damaged or of another kind.*Copy it again"):
        load_packed(tmp_path / "cut.safetensors")


def rewritten(packed, path, change):
    """Write the file again with its tensors and metadata changed."""
    with safetensors.safe_open(str(packed), framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(packed)
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    return path


def flip_a_bit(tensors, _metadata):
    tensors["codes"][3] ^= 1


def other_version(_tensors, metadata):
    metadata["format_version"] = "7"


def no_format(_tensors, metadata):
    del metadata["format"]


def foreign_description(tensors, metadata):
    tensors["description"] = torch.arange(9, dtype=torch.uint8)
    metadata["sha256"] = packed_format._checksum(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip_a_bit, "changed after it was written"),
        (other_version, "format version 7; this program reads 1"),
        (no_format, "is no packed network but other weights"),
        (foreign_description, "cannot be rebuilt"),
    ],
)
def test_edited_and_foreign_files_are_refused(packed, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_packed(rewritten(packed, tmp_path / "a.safetensors", change))


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_packed(tmp_path / "absent.safetensors")


def test_the_metadata_tell_a_reader_what_the_file_is(packed):
    with safetensors.safe_open(str(packed), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT
    assert (metadata["network"], metadata["scale"], metadata["bits"]) == ("SwinIR", "2", "4")
