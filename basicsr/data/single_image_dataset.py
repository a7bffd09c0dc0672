"""LR images alone, to be enlarged: there is nothing to compare the results with."""

import logging
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from basicsr.data.base import Pair, PairedDataset
from basicsr.data.pair_check import check_pairs
from basicsr.data.pairs import ImagePair, files_by_name, listed_images
from basicsr.utils.errors import OptionsError
from basicsr.utils.image import image_to_tensor, read_image
from basicsr.utils.registry import DATASET_REGISTRY
from basicsr.utils.signature import NOT_RECIPE

_logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class SingleImageDataset(PairedDataset):
    """LR images of a folder without their HR partners, in the order of their names.

    `test.py` enlarges and saves them, whatever `val:save_img` says. Metrics that compare with HR are left out.

    Args:
        scale: the scale factor.
        phase: `val`; such images train nothing.
        name: name of the data set in logs and results.
        dataroot_lq: folder of LR images; one that ends in .lmdb is a database of BasicSR's.
        meta_info_file: list of the images to take, as BasicSR has it, a line `0001.png (480,480,3)` each.
        num_images: use only so many images, the first by name.

    Raises:
        OptionsError: the images are to train a network.
        DataError: the folder is missing or empty, or an image cannot be read.
    """

    has_gt = False

    def __init__(
        self,
        scale: int,
        phase: Literal["train", "val"],
        /,
        *,
        name: Annotated[str, NOT_RECIPE],
        dataroot_lq: Annotated[str, NOT_RECIPE],
        meta_info_file: Annotated[str | None, NOT_RECIPE] = None,
        num_images: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        if phase == "train":
            raise self._trains_nothing(name)
        self.name = name
        self.scale = scale
        self._files = list(files_by_name(listed_images(dataroot_lq, meta_info_file)).items())[:num_images]
        check_pairs(name, [ImagePair(image, file, None) for image, file in self._files], 1)  # that each can be read
        _logger.info("Data set %s: %d LR images of '%s', without HR.", name, len(self._files), dataroot_lq)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Pair:
        """Return an image: `name`, without suffix, and `lq`: 3,h,w RGB float32 in 0..1.

        Raises:
            DataError: the image cannot be read.
        """
        name, file = self._files[index]
        return {"name": name, "lq": image_to_tensor(read_image(file))}

    def sample(self, index: int, seed: tuple[int, ...]) -> dict[str, Tensor]:  # noqa: ARG002 -- there are no samples
        """Raise an OptionsError: images without HR train nothing."""
        raise self._trains_nothing(self.name)

    @staticmethod
    def _trains_nothing(name: str) -> OptionsError:
        return OptionsError(
            f"The data set '{name}' is a SingleImageDataset, LR images alone, from which no network learns. Take "
            "PairedImageDataset with a dataroot_gt."
        )
