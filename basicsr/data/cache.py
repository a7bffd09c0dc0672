"""Decoded images kept in memory, up to a number of bytes."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
import torch

ImagesT = TypeVar("ImagesT", bound=tuple[np.ndarray, ...])


class ImageCache(Generic[ImagesT]):
    """Keeps what was loaded first until the budget is used up; nothing is thrown out again.

    Training visits all images equally often, so that a full cache that keeps what it has serves as many requests as any
    other rule, and never throws out what it is about to need. Every worker process of a loader has a copy and its share
    of the budget.

    Args:
        budget: bytes that the images may take, for all workers of this process together.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._entries: dict[Hashable, ImagesT] = {}

    def get(self, key: Hashable, load: Callable[[], ImagesT]) -> ImagesT:
        """Return the images under `key`, calling `load` where they are not in memory."""
        images = self._entries.get(key)
        if images is None:
            images = load()
            size = sum(image.nbytes for image in images)
            if self._used + size <= self._share():
                self._entries[key] = images
                self._used += size
        return images

    def _share(self) -> int:
        worker = torch.utils.data.get_worker_info()
        return self._budget if worker is None else self._budget // worker.num_workers
