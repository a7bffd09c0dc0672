"""What prepared folders look like, and work on many images at once; see prepare_data.py."""

import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import torch
from tqdm import tqdm

from basicsr.utils.errors import DataError
from basicsr.utils.image_folders import image_files

Result = TypeVar("Result")


@dataclass(frozen=True)
class Layout:
    """The places of a prepared folder."""

    root: Path

    @property
    def hr(self) -> Path:
        return self.root / "HR"

    def lr(self, scale: int) -> Path:
        return self.root / "LR_bicubic" / f"X{scale}"

    def scales(self) -> list[int]:
        """Return the scale factors that have a folder of LR images."""
        names = [folder.name for folder in (self.root / "LR_bicubic").glob("X*") if folder.is_dir()]
        return sorted(int(name[1:]) for name in names if re.fullmatch(r"X[1-9]\d*", name))


def images_if_any(folder: Path) -> list[Path]:
    """Return the images of a folder, none where it is missing or empty."""
    try:
        return image_files(folder)
    except DataError:
        return []


def parallel(work: Callable[..., Result], jobs: Iterable, workers: int) -> Iterator[Result]:
    """Yield the results as they come, with a progress bar.

    Raises:
        DataError: one of several processes has ended by itself.
    """
    jobs = list(jobs)
    if workers == 1:
        _single_threaded()
        yield from map(work, tqdm(jobs, unit="image"))
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_single_threaded)
    try:
        futures = [executor.submit(work, job) for job in jobs]
        for future in tqdm(as_completed(futures), total=len(jobs), unit="image"):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process that works on images has ended by itself. Most often the memory did not suffice: give fewer --workers. The same "
            "command continues the work."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _single_threaded() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
