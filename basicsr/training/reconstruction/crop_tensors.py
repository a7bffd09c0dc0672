"""Tensors of all calibration crops: in memory, or in temporary files that are mapped into it."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from basicsr.utils.errors import OptionsError, TrainingError, explained
from basicsr.utils.files import why_no_folder

_MIB = 1 << 20


class CropTensors:
    """Tensors of all calibration crops by name, written in batches along axis 0 and read by the numbers of crops.

    Args:
        num_crops: length of axis 0 of every tensor.
        folder: folder of the temporary files that hold the tensors, mapped into memory; None for plain memory. The files have no
            name there (on Windows: are deleted when closed), so that none is left behind however the run ends.
    """

    def __init__(self, num_crops: int, folder: Path | None) -> None:
        self._num_crops = num_crops
        self._folder = folder
        self._tensors: dict[str, Tensor] = {}

    def write(self, name: str, first: int, batch: Tensor) -> None:
        """Store the values of the crops from number `first` on.

        Raises:
            TrainingError: the disk is full, or the folder cannot be written.
        """
        if name not in self._tensors:
            self._tensors[name] = self._empty((self._num_crops, *batch.shape[1:]), batch.dtype)
        self._tensors[name][first : first + len(batch)] = batch

    def read(self, name: str, index: Tensor) -> Tensor:
        """Return the values of the crops with the numbers `index`, on the CPU."""
        return self._tensors[name].index_select(0, index)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self._folder is None:
            return torch.empty(shape, dtype=dtype)
        num_bytes = torch.Size(shape).numel() * dtype.itemsize
        failure = f"A cache of {num_bytes / _MIB:.0f} MiB cannot be made in '{self._folder}'"
        remedy = "Free some space, or name another folder with 'train:cache_folder'."
        with explained(TrainingError, failure, remedy), tempfile.TemporaryFile(dir=self._folder) as file:
            if hasattr(os, "posix_fallocate"):  # a hole that cannot be filled later would end the process
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            mapped = np.memmap(file, np.uint8, "r+", shape=(num_bytes,))
        return torch.from_numpy(mapped).view(dtype).view(shape)


def choose_storage(num_bytes: int, budget_mb: int, folder: str | None) -> Path | None:
    """Return where a cache of a size goes: None for memory, if it is within the budget, else the folder of temporary files.

    Args:
        num_bytes: size of the largest cache.
        budget_mb: what may be kept in memory, in MiB.
        folder: where temporary files go; None for that of the system.

    Raises:
        OptionsError: the cache exceeds the budget and the space left in the folder, or there is no such folder.
    """
    if num_bytes <= budget_mb * _MIB:
        return None
    path = Path(folder or tempfile.gettempdir())
    needs = (
        f"The largest block needs a cache of {num_bytes / _MIB:.0f} MiB, more than 'train:cache_budget_mb' {budget_mb}"
    )
    if (problem := why_no_folder(path)) is not None:
        raise OptionsError(f"{needs}, and the folder for it, '{path}', {problem}. Correct 'train:cache_folder'.")
    free = shutil.disk_usage(path).free
    if num_bytes > free:
        raise OptionsError(
            f"{needs}, and '{path}' has only {free / _MIB:.0f} MiB left. Name another folder with 'train:cache_folder', raise "
            "the budget, or use fewer or smaller calibration crops."
        )
    return path
