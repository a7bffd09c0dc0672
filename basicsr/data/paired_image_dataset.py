"""Pairs of LR and HR images from folders, whole for evaluation or as random crops for training."""

import logging
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from basicsr.data.base import Pair, PairedDataset
from basicsr.data.cache import ImageCache
from basicsr.data.pair_check import check_pairs
from basicsr.data.pairs import find_pairs, load_pair
from basicsr.data.transforms import orient, paired_random_crop, random_orientation
from basicsr.utils.errors import OptionsError
from basicsr.utils.image import image_to_tensor
from basicsr.utils.registry import DATASET_REGISTRY
from basicsr.utils.signature import NOT_RECIPE

_logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class PairedImageDataset(PairedDataset):
    """LR/HR pairs of a folder, in the order of their names.

    HR images are cropped at the bottom and right to a multiple of the scale. Without `dataroot_lq`, the LR images are made
    by Matlab's bicubic reduction, bit for bit what the field's LR files are.

    Args:
        scale: the scale factor.
        phase: `train` needs an `lq_size`.
        name: name of the data set in logs and results.
        dataroot_gt: folder of HR images; one that ends in .lmdb is a database of BasicSR's.
        dataroot_lq: folder of LR images, of either kind.
        filename_tmpl: name of an LR file without suffix, such as `{}x{scale}`, or `{-_HR}_LR`, where HR names end in `_HR`;
            found out if not given.
        meta_info_file: list of the HR images to take, as BasicSR has it, a line `0001_s001.png (480,480,3)` each.
        lq_size: side of the LR squares that are cut for training, in pixels; those of HR are `scale` times as large.
        use_hflip: mirror training samples at random.
        use_rot: turn training samples at random.
        num_images: use only so many images, the first by name.
        cache_budget_mb: decoded images kept in memory, in MiB per process; 0 decodes anew each time.

    Attributes:
        name, scale, lq_size, use_hflip, use_rot: as given.

    Raises:
        OptionsError: `lq_size` is missing for training, or `dataroot_gt`.
        DataError: a folder is missing or empty, HR and LR images do not match, or one cannot be read or is smaller than a crop.
    """

    def __init__(
        self,
        scale: int,
        phase: Literal["train", "val"],
        /,
        *,
        name: Annotated[str, NOT_RECIPE],
        dataroot_gt: Annotated[str | None, NOT_RECIPE] = None,
        dataroot_lq: Annotated[str | None, NOT_RECIPE] = None,
        filename_tmpl: Annotated[str | None, NOT_RECIPE] = None,
        meta_info_file: Annotated[str | None, NOT_RECIPE] = None,
        lq_size: Annotated[int, Field(gt=0)] | None = None,
        use_hflip: bool = True,
        use_rot: bool = True,
        num_images: Annotated[int, Field(gt=0)] | None = None,
        cache_budget_mb: Annotated[int, Field(ge=0), NOT_RECIPE] = 1024,
    ) -> None:
        self.name = name
        self.scale = scale
        self.lq_size = lq_size
        if phase == "train":
            self.crop_size()
        self.use_hflip = use_hflip
        self.use_rot = use_rot
        if dataroot_gt is None:
            raise OptionsError(
                f"The data set '{name}' has no dataroot_gt, the folder of its HR images. For LR images alone, which are enlarged "
                "without being measured, set type: SingleImageDataset."
            )
        self._pairs = find_pairs(dataroot_gt, dataroot_lq, scale, filename_tmpl, meta_info_file)[:num_images]
        check_pairs(name, self._pairs, scale, lq_size if phase == "train" else None)
        self._cache: ImageCache[tuple[np.ndarray, np.ndarray]] = ImageCache(cache_budget_mb * 2**20)
        if dataroot_lq is None:
            _logger.info(
                "Data set %s: %d images of '%s', LR made by bicubic reduction.", name, len(self._pairs), dataroot_gt
            )
        else:
            _logger.info("Data set %s: %d images of '%s' and '%s'.", name, len(self._pairs), dataroot_gt, dataroot_lq)

    def crop_size(self) -> int:
        """Return the side of the LR crops in pixels.

        Raises:
            OptionsError: the data set has no option `lq_size`.
        """
        if self.lq_size is None:
            raise OptionsError(
                f"The training data set '{self.name}' needs the option lq_size, the side of its LR crops in pixels."
            )
        return self.lq_size

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        """Return a whole pair.

        Returns:
            `name`: name of the HR file without suffix; `lq`: 3,h,w and `gt`: 3,h*scale,w*scale, RGB float32 in 0..1.

        Raises:
            DataError: an image cannot be read, or LR and HR differ in size.
        """
        lq, gt = self._load(index)
        return {"name": self._pairs[index].name, "lq": image_to_tensor(lq), "gt": image_to_tensor(gt)}

    def sample(self, index: int, seed: tuple[int, ...]) -> dict[str, Tensor]:
        """Return a random crop of a pair in a random orientation, both given by `seed` alone.

        Returns:
            `lq`: 3,lq_size,lq_size and `gt`: 3,lq_size*scale,lq_size*scale, RGB float32 in 0..1.

        Raises:
            DataError: an image cannot be read or is smaller than the crops, or LR and HR differ in size.
        """
        lq, gt = self._load(index)
        random = np.random.default_rng(seed)
        lq, gt = paired_random_crop(lq, gt, self.crop_size(), self.scale, random, self.file_of(index))
        orientation = random_orientation(random, self.use_hflip, self.use_rot)
        return {"lq": image_to_tensor(orient(lq, **orientation)), "gt": image_to_tensor(orient(gt, **orientation))}

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a whole pair as it is on disk, LR h,w,3 and HR h*scale,w*scale,3; see `load_pair`."""
        return load_pair(self._pairs[index], self.scale)

    def file_of(self, index: int) -> str:
        """Return the path of an HR image, for messages."""
        return str(self._pairs[index].gt)

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._cache.get(index, lambda: self.load(index))
