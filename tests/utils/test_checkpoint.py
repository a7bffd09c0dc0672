"""Checkpoints: whole or absent, never code, and the random number generators come back."""

import pickle
import random

import numpy as np
import pytest
import torch

from basicsr.utils.checkpoint import load_torch, rng_state, save_torch, set_rng_state
from basicsr.utils.errors import CheckpointError


def test_round_trip(tmp_path):
    content = {"iter": 3, "params": {"a": torch.arange(5)}, "names": ["x", "y"], "best": {"psnr": 1.5}}
    save_torch(content, tmp_path / "folder" / "a.state")
    loaded = load_torch(tmp_path / "folder" / "a.state")
    assert torch.equal(loaded["params"].pop("a"), content["params"].pop("a"))
    assert loaded == content


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"params": Evil()}))
    torch.save({"params": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(CheckpointError, match="would run code"):
            load_torch(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path, keep):
    save_torch({"a": torch.randn(100)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[: int(len(data) * keep) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match="a.pth"):
        load_torch(tmp_path / "a.pth")


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_torch(tmp_path / "a.pth")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    save_torch({"a": 1}, tmp_path / "a.pth")

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_torch({"a": 2}, tmp_path / "a.pth")
    assert load_torch(tmp_path / "a.pth") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="could not be saved"):
        save_torch({"a": 1}, tmp_path / "models" / "a.pth")


def test_random_numbers_continue(tmp_path):
    save_torch(rng_state(), tmp_path / "rng.state")
    expected = torch.rand(3), np.random.rand(3), random.random()
    set_rng_state(load_torch(tmp_path / "rng.state"))
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


def test_a_single_flipped_bit_of_a_tensor_is_refused(tmp_path):
    save_torch({"params": torch.full((1000,), 0.5)}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[data.index(torch.full((9,), 0.5).numpy().tobytes()) + 6] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    assert torch.load(tmp_path / "a.pth", weights_only=True)["params"].unique().numel() == 2  # torch does not notice
    with pytest.raises(CheckpointError, match="changed after it was written: .*data/0"):
        load_torch(tmp_path / "a.pth")
