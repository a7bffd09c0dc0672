"""Tensors of calibration crops in memory and in temporary files."""

import errno
import os
import shutil

import pytest
import torch

from basicsr.training.reconstruction.crop_tensors import CropTensors, choose_storage
from basicsr.utils.errors import OptionsError, TrainingError


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_what_is_written_in_batches_is_read_by_number(tmp_path, mapped, dtype):
    values = (100 * torch.randn(7, 2, 3)).to(dtype)
    tensors = CropTensors(7, tmp_path if mapped else None)
    for first in range(0, 7, 3):
        tensors.write("a", first, values[first : first + 3])
        tensors.write("b", first, -values[first : first + 3])
    index = torch.tensor([6, 0, 6, 4])
    assert torch.equal(tensors.read("a", index), values[index])
    assert torch.equal(tensors.read("b", index), -values[index])


@pytest.mark.skipif(os.name == "nt", reason="an open file keeps its name on Windows")
def test_no_file_is_ever_left_behind(tmp_path):
    tensors = CropTensors(2, tmp_path)
    tensors.write("a", 0, torch.ones(2, 3))
    assert not list(tmp_path.iterdir())
    assert torch.equal(tensors.read("a", torch.tensor([1])), torch.ones(1, 3))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system does not reserve space")
def test_a_disk_that_is_full_is_a_sentence(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TrainingError, match="cannot be made in .* space .*cache_folder"):
        CropTensors(2, tmp_path).write("a", 0, torch.ones(2, 3))


def test_where_a_cache_goes(tmp_path, monkeypatch):
    mebibyte = 2**20
    assert choose_storage(5 * mebibyte, 5, "absent") is None
    assert choose_storage(5 * mebibyte + 1, 5, str(tmp_path)) == tmp_path
    with pytest.raises(
        OptionsError, match=r"cache of 5 MiB, more than .* 4, and the folder for it, '.*absent', does not exist"
    ):
        choose_storage(5 * mebibyte, 4, str(tmp_path / "absent"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 7, 3 * mebibyte))
    with pytest.raises(OptionsError, match=r"cache of 5 MiB, more than .* 4, and .* only 3 MiB left.*fewer or smaller"):
        choose_storage(5 * mebibyte, 4, str(tmp_path))
