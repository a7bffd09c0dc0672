"""Which crops make up a training batch: a pure function of the seed and the number of the batch.

So a run that continues at iteration k sees the very batches that an undisturbed run sees, with any number of workers, and
several processes together see those of one.
"""

import functools
import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from basicsr.data.base import PairedDataset
from basicsr.utils.errors import DataError, OptionsError, UserError
from basicsr.utils.logger import get_logger

SampleKey = tuple[int, tuple[int, ...]]
"""An index into the data set, and the seed of the sample's crop and orientation."""

_ORDER, _SAMPLE = 0, 1  # keep the random streams of orders and samples apart


class TrainingSampler(Sampler[list[SampleKey]]):
    """An endless sequence of batches that visits every image once per epoch, each epoch in a new random order.

    Batches follow each other through the concatenated epochs without a gap, so that a batch may span epochs and may be
    larger than the data set. With several processes, every one gets its slice of each batch.

    Args:
        num_images: length of the data set.
        batch_size: samples in a batch, all processes together.
        seed: chooses orders, crops and orientations.
        start_iteration: number of the first batch, from 0.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        OptionsError: the batch size is not positive or cannot be split evenly between the processes.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_batch_size(batch_size, world_size)
        self._num_images = num_images
        self._batch_size = batch_size
        self._seed = seed
        self._start_iteration = start_iteration
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return (self.batch(iteration) for iteration in itertools.count(self._start_iteration))

    def batch(self, iteration: int) -> list[SampleKey]:
        """Return this process's part of batch number `iteration` (from 0)."""
        size = self._batch_size // self._world_size
        first = iteration * self._batch_size + self._rank * size
        return [self._key(position) for position in range(first, first + size)]

    def _key(self, position: int) -> SampleKey:
        epoch, offset = divmod(position, self._num_images)
        return int(_order(self._seed, epoch, self._num_images)[offset]), (self._seed, _SAMPLE, position)


def check_batch_size(batch_size: int, world_size: int) -> None:
    """Refuse a batch size (all processes together) that cannot be split evenly between the processes, with an OptionsError."""
    if batch_size < 1 or batch_size % world_size:
        raise OptionsError(
            f"The batch size {batch_size} (all processes together) cannot be split evenly between {world_size} "
            f"processes; use a positive multiple of {world_size}."
        )


def build_train_loader(
    dataset: PairedDataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """Return the endless batches from `start_iteration` on; worker processes end with `close()` or with the iterator.

    Torch's global random numbers are neither read nor changed.

    Args:
        dataset: the training data.
        batch_size: samples in a batch, all processes together.
        num_workers: processes that load images; 0 loads in this one.
        seed: chooses orders, crops and orientations; see `TrainingSampler`.
        start_iteration: number of the first batch, from 0.
        rank: number of this process.
        world_size: number of processes.

    Returns:
        Iterator of `lq`: N,3,h,w and `gt`: N,3,h*scale,w*scale, float32 in 0..1, N = batch_size / world_size. It raises the
        errors of `PairedDataset.sample`, from workers too.

    Raises:
        OptionsError: the batch size cannot be split evenly between the processes.
    """
    sampler = TrainingSampler(
        len(dataset),
        batch_size=batch_size,
        seed=seed,
        start_iteration=start_iteration,
        rank=rank,
        world_size=world_size,
    )
    loader = DataLoader(
        _Samples(dataset),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # otherwise a seed for the workers is drawn from the global generator
    )
    return _batches(loader)


def _batches(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    try:
        for batch in _iterator(loader):
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        if not ("DataLoader worker (pid" in reason or "shared memory" in reason or "</torch_" in reason):
            raise
        raise DataError(
            f"A process that loads images could not go on: {reason.rstrip('.')}. Most often the memory, or the part of it that "
            "processes share (/dev/shm), did not suffice: lower train:num_workers, then continue with --auto_resume."
        ) from error


def _iterator(loader: DataLoader) -> Iterator[Any]:
    """Begin to load; torch then does not raise wherever the program is when a worker dies, but where the next batch is asked for."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)


class _Samples(Dataset):
    """Random samples by key. Errors are returned: raised in a worker, they would reach the user as a traceback in text."""

    def __init__(self, dataset: PairedDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: SampleKey) -> dict[str, Tensor] | UserError:
        try:
            return self._dataset.sample(*key)
        except UserError as error:
            return error


def _collate(samples: list[dict[str, Tensor] | UserError]) -> dict[str, Tensor] | UserError:
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return errors[0] if errors else default_collate(samples)


def _start_worker(worker: int) -> None:
    # Ctrl-C and SIGTERM may reach the whole process group; the main process saves its state and then ends the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if (
        parent is not None and not parent.is_alive()
    ):  # torch looks for a parent that goes, not for one that has gone already
        os._exit(0)
    cv2.setNumThreads(0)
    if worker > 0:  # what there is to say of the data, such as of an alpha channel, one worker says
        get_logger().setLevel(logging.ERROR)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(num_images)
