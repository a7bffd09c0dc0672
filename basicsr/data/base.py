"""What a data set is: pairs of LR and HR images, whole for evaluation or as random crops for training."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, TypedDict

from torch import Tensor
from torch.utils.data import Dataset


class _LowResolution(TypedDict):
    name: str
    lq: Tensor


class Pair(_LowResolution, total=False):
    """A whole pair: the name of the HR file without suffix, `lq` 3,h,w and `gt` 3,h*scale,w*scale, RGB float32 in 0..1.

    A data set without HR gives no `gt`.
    """

    gt: Tensor


class PairedDataset(Dataset[Pair], ABC):
    """Pairs of LR and HR images by index.

    A subclass takes the scale factor and the phase as its first two, positional-only arguments; the arguments that follow
    are its options in YAML. It sets `name` and `scale`, and provides `__len__`, `__getitem__` and `sample`.

    Attributes:
        name: name of the data set in logs and results.
        scale: the scale factor.
        has_gt: whether there are HR images; without, nothing is trained or measured.
    """

    name: str
    scale: int
    has_gt: bool = True

    @abstractmethod
    def __init__(self, scale: int, phase: Literal["train", "val"], /) -> None:
        """Take the scale factor and the phase: `train` for random crops, `val` for whole images."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of pairs."""

    @abstractmethod
    def __getitem__(self, index: int) -> Pair:
        """Return a whole pair; evaluation measures it.

        Raises:
            IndexError: the index is beyond the last pair.
            DataError: an image cannot be used.
        """

    @abstractmethod
    def sample(self, index: int, seed: tuple[int, ...]) -> dict[str, Tensor]:
        """Return a random crop of a pair, drawn from `seed` alone; training learns from it.

        Returns:
            `lq`: 3,s/scale,s/scale and `gt`: 3,s,s, RGB float32 in 0..1, with the same s in every sample.

        Raises:
            DataError: an image cannot be used.
        """

    def __iter__(self) -> Iterator[Pair]:
        """Yield all pairs in the order of their indices."""
        return (self[index] for index in range(len(self)))
