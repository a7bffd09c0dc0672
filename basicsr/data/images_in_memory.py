"""A training set decoded once and held on a device, where whole batches of random crops are cut in a few operations."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.sampler import SampleKey
from basicsr.data.transforms import check_crop_fits, random_orientation, random_position
from basicsr.utils.errors import DataError
from basicsr.utils.logger import get_logger

_MIB = 2**20
_LOOKED_AT = 8  # images from which the size of all is estimated before all are decoded
_THREADS = 8

Pair = tuple[np.ndarray, np.ndarray]


class DoesNotFitError(DataError):
    """The images take more memory than they may, or are of a kind that is not held in memory."""


class ImagesInMemory:
    """All LR/HR pairs of a training set, as 8-bit pixels on one device.

    A batch is what `PairedImageDataset.sample` returns for the same keys, to the bit. An LR image is made once, from the whole
    HR image. Pixels of all images follow each other in one tensor, so that a crop in any orientation is a start and
    two strides, and a batch is one gather.

    Args:
        dataset: the images and how they are cut.
        device: where they are held.
        budget: bytes that they may take.

    Raises:
        DoesNotFitError: they take more, or have 16 bits per channel.
        DataError: an image cannot be read or is smaller than the crops.
    """

    def __init__(self, dataset: PairedImageDataset, device: torch.device, budget: int) -> None:
        self._dataset = dataset
        self._device = device
        pairs = _load_all(dataset, budget)
        self._lq = _Pixels([lq for lq, _ in pairs], dataset.crop_size(), device)
        self._gt = _Pixels([gt for _, gt in pairs], dataset.crop_size() * dataset.scale, device)
        get_logger().info(
            "Data set %s: %d pairs of images are held in memory on '%s', %d MiB.",
            dataset.name, len(pairs), device, sum(map(_bytes_of, pairs)) // _MIB,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._dataset)

    def batches(self, keys: Iterable[list[SampleKey]]) -> Iterator[dict[str, Tensor]]:
        """Yield the batch of each list of keys; see `batch`."""
        return map(self.batch, keys)

    def batch(self, keys: list[SampleKey]) -> dict[str, Tensor]:
        """Cut the crops of a batch.

        Args:
            keys: an index and a seed for each sample, as `TrainingSampler` gives them.

        Returns:
            `lq`: N,3,lq_size,lq_size and `gt`: N,3,lq_size*scale,lq_size*scale, RGB float32 in 0..1, on the device.
        """
        scale = self._dataset.scale
        addresses = []
        for index, seed in keys:
            random = np.random.default_rng(seed)
            height, width = self._lq.sizes[index]
            top, left = random_position(random, height, width, self._lq.side)
            turned = random_orientation(random, self._dataset.use_hflip, self._dataset.use_rot)
            lq = self._lq.address(index, top, left, **turned)
            addresses.append((*lq, *self._gt.address(index, top * scale, left * scale, **turned)))
        # not waiting for the copy: the queue of the device stays filled
        table = torch.tensor(addresses).to(self._device, non_blocking=True)
        return {"lq": self._lq.gather(*table[:, :3].unbind(1)), "gt": self._gt.gather(*table[:, 3:].unbind(1))}


class _Pixels:
    """Images of any sizes, one after the other; squares of one side are cut out of them.

    A pixel is an int32, of whose bytes the first three are red, green and blue: four bytes are read at once several times
    as fast as three.
    """

    def __init__(self, images: list[np.ndarray], side: int, device: torch.device) -> None:
        self.side = side
        self.sizes = [image.shape[:2] for image in images]
        counts = [height * width for height, width in self.sizes]
        self._offsets = np.cumsum([0, *counts[:-1]]).tolist()
        colours = torch.zeros(sum(counts), 4, dtype=torch.uint8, device=device)
        for offset, count, image in zip(self._offsets, counts, images, strict=True):
            colours[offset : offset + count, :3] = torch.from_numpy(image.reshape(-1, 3))  # H,W,3 -> H*W,3
        self._pixels = colours.view(torch.int32).view(-1)  # pixels,4 uint8 -> pixels
        self._range = torch.arange(side, device=device)
        self._white = torch.tensor(255.0, device=device)  # as a tensor, since dividing by a number is inexact on GPUs

    def address(
        self, index: int, top: int, left: int, *, hflip: bool, vflip: bool, rot90: bool
    ) -> tuple[int, int, int]:
        """Return where an oriented square begins in the pixels, and the steps to its next row and next column."""
        width = self.sizes[index][1]
        last = self.side - 1
        start = self._offsets[index] + (top + last * vflip) * width + left + last * hflip
        row_step, column_step = -width if vflip else width, -1 if hflip else 1
        return (start, column_step, row_step) if rot90 else (start, row_step, column_step)

    def gather(self, start: Tensor, row_step: Tensor, column_step: Tensor) -> Tensor:
        """Return the squares at addresses (N,) as N,3,side,side float32 in 0..1."""
        rows = start[:, None] + row_step[:, None] * self._range  # N,side
        places = rows[:, :, None] + column_step[:, None, None] * self._range  # N,side,side
        squares = self._pixels[places].view(torch.uint8).view(*places.shape, 4)  # N,side,side,4
        planes = squares[..., :3].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return planes.div_(self._white)


def _load_all(dataset: PairedImageDataset, budget: int) -> list[Pair]:
    """Decode all pairs in several threads, after a look at a few of them."""
    step = -(-len(dataset) // _LOOKED_AT)
    looked_at = {index: _load(dataset, index) for index in range(0, len(dataset), step)}
    _check_budget(dataset, sum(map(_bytes_of, looked_at.values())) / len(looked_at) * len(dataset), budget)
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        pairs = list(pool.map(lambda i: looked_at.get(i) or _load(dataset, i), range(len(dataset))))
    finally:
        pool.shutdown(cancel_futures=True)
    _check_budget(dataset, sum(map(_bytes_of, pairs)), budget)
    return pairs


def _load(dataset: PairedImageDataset, index: int) -> Pair:
    lq, gt = dataset.load(index)
    name = dataset.file_of(index)
    check_crop_fits(gt, dataset.crop_size(), dataset.scale, name)
    if (lq.dtype, gt.dtype) != (np.uint8, np.uint8):
        raise DoesNotFitError(f"The image '{name}' or its LR image has 16 bits per channel; 8 bits are held in memory.")
    return lq, gt


def _bytes_of(pair: Pair) -> int:
    return sum(4 * image.shape[0] * image.shape[1] for image in pair)


def _check_budget(dataset: PairedImageDataset, size: float, budget: int) -> None:
    if size > budget:
        raise DoesNotFitError(
            f"The {len(dataset)} pairs of the data set '{dataset.name}' take {size / _MIB:.0f} MiB decoded, but "
            f"{budget / _MIB:.0f} MiB of memory may be used (train:data_memory_mb, and half of what is free on a GPU)."
        )
