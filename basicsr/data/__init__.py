"""Datasets, calibration sets and the batches of a training run, built from options.

May import utils.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from basicsr.data.base import PairedDataset
from basicsr.data.calibration_crops import CalibrationCrops, calibration_crops
from basicsr.data.images_in_memory import DoesNotFitError, ImagesInMemory
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.sampler import TrainingSampler, build_train_loader
from basicsr.utils import dist
from basicsr.utils.errors import DataError
from basicsr.utils.files import why_no_folder
from basicsr.utils.options import Component, TrainOptions
from basicsr.utils.registry import DATASET_REGISTRY

__all__ = [
    "CalibrationCrops",
    "TrainingImages",
    "build_dataset",
    "build_evaluation_sets",
    "calibration_crops",
    "crop_batches",
    "folder_of",
    "hold_in_memory",
    "training_batches",
]

TrainingImages = PairedDataset | ImagesInMemory

_logger = logging.getLogger(__name__)


def build_dataset(options: Mapping[str, Any], scale: int, phase: Literal["train", "val"], where: str) -> PairedDataset:
    """Construct the data set that `options` describe: `type` and the options of that class.

    Args:
        options: as read from YAML.
        scale: the scale factor.
        phase: `train` for random crops, `val` for whole images.
        where: path of the options, such as `datasets:train`, for messages.

    Raises:
        OptionsError: an option is unknown, missing or of a wrong type.
        DataError: the folders of images cannot be used.
    """
    return DATASET_REGISTRY.build(options, scale, phase, where=where)


def build_evaluation_sets(datasets: Mapping[str, Component], scale: int) -> list[PairedDataset]:
    """Construct data sets of whole images; a test set whose folder is not on disk is named and skipped.

    Args:
        datasets: options by key, such as `val` or `test_1`.
        scale: the scale factor.

    Raises:
        DataError: the folders of images cannot be used.
    """
    found = []
    for key, options in datasets.items():
        root = folder_of(options)
        if key.startswith("test") and isinstance(root, str) and why_no_folder(Path(root)):
            _logger.warning("Benchmark %s is skipped: there is no folder '%s'.", options.get("name", key), root)
            continue
        found.append(build_dataset(options, scale, "val", f"datasets:{key}"))
    return found


def folder_of(options: Mapping[str, Any]) -> Any:
    """Return the folder of the HR images of a data set, or of its LR images where it has no others."""
    return options.get("dataroot_gt") or options.get("dataroot_lq")


def hold_in_memory(dataset: PairedDataset, options: TrainOptions, device: torch.device) -> TrainingImages:
    """Return the training set in the memory of a device if the options ask for it and it fits, else as it is.

    Args:
        dataset: the training set.
        options: the section `train`, for `data_in_memory` and `data_memory_mb`.
        device: where batches are needed.

    Raises:
        DataError: `data_in_memory` is true and the images do not fit; or an image cannot be used.
    """
    if options.data_in_memory is False:
        return dataset
    budget = options.data_memory_mb * 2**20
    if device.type == "cuda":
        budget = min(budget, torch.cuda.mem_get_info(device)[0] // 2)
    try:
        if not isinstance(dataset, PairedImageDataset):
            raise DoesNotFitError(f"A data set of type {type(dataset).__name__} cannot be held in memory.")
        return ImagesInMemory(dataset, device, budget)
    except DoesNotFitError as error:
        if options.data_in_memory == "auto":
            _logger.warning("%s Images are loaded by %d worker processes instead.", error, options.num_workers)
            return dataset
        raise DataError(f"{error} Set train:data_in_memory to false or auto to have them loaded as needed.") from error


def training_batches(
    dataset: TrainingImages, options: TrainOptions, seed: int, start_iteration: int
) -> Iterator[dict[str, Tensor]]:
    """Return this process's part of the endless training batches; see `build_train_loader` and `ImagesInMemory`."""
    if isinstance(dataset, ImagesInMemory):
        sampler = TrainingSampler(
            len(dataset),
            batch_size=options.batch_size,
            seed=seed,
            start_iteration=start_iteration,
            rank=dist.rank(),
            world_size=dist.world_size(),
        )
        return dataset.batches(sampler)
    return build_train_loader(
        dataset,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        seed=seed,
        start_iteration=start_iteration,
        rank=dist.rank(),
        world_size=dist.world_size(),
    )


def crop_batches(crops: Tensor, batch_size: int, seed: int, start_iteration: int) -> Iterator[dict[str, Tensor]]:
    """Yield this process's part of endless random batches of calibration crops, as `training_batches` does of images.

    Args:
        crops: (N, 3, h, w).
        batch_size: crops in a batch, all processes together.
        seed: chooses the order, which is new in each epoch.
        start_iteration: number of the first batch, from 0.

    Yields:
        `lq`: the crops of the batch, and `index`: int64, their places in `crops`.

    Raises:
        OptionsError: the batch size cannot be split evenly between the processes.
    """
    sampler = TrainingSampler(
        len(crops),
        batch_size=batch_size,
        seed=seed,
        start_iteration=start_iteration,
        rank=dist.rank(),
        world_size=dist.world_size(),
    )
    for keys in sampler:
        index = torch.tensor([index for index, _ in keys])
        yield {"lq": crops[index], "index": index}
