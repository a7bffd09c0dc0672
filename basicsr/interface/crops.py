"""Calibration crops as people have them: a tensor, arrays, or image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from basicsr.data.calibration import crops_of, make_calibration_set
from basicsr.data.calibration_tensor import require_unit_range
from basicsr.utils.errors import DataError
from basicsr.utils.image import image_to_tensor, read_image
from basicsr.utils.logger import get_logger

Image = Tensor | np.ndarray | str | Path
"""(3, h, w) in 0..1, or (h, w, 3): uint8, uint16, or floats in 0..1; or a file."""
Crops = Tensor | Sequence[Image]


def draw_crops(
    hr_folder: str | Path,
    scale: int,
    *,
    lr_folder: str | Path | None = None,
    number: int = 32,
    size: int = 64,
    seed: int = 0,
) -> Tensor:
    """Cut random LR crops from the pictures of a folder, as the commands do for calibration.

    Args:
        hr_folder: folder of HR images.
        scale: the scale factor.
        lr_folder: folder of their LR images; by default these are made by Matlab's bicubic reduction.
        number: how many crops.
        size: their side in LR pixels.
        seed: chooses them.

    Returns:
        (number, 3, size, size) RGB float32 in 0..1.

    Raises:
        DataError: a number is below 1, or the folders cannot be used or do not hold so many crops.
    """
    for name, value in {"scale": scale, "number": number, "size": size}.items():
        if value < 1:
            raise DataError(f"{name} is {value}, but must be a whole number of at least 1.")
    folders = str(hr_folder), None if lr_folder is None else str(lr_folder)
    return crops_of(make_calibration_set(*folders, scale=scale, num_images=number, crop_size=size, seed=seed))


def as_crops(crops: Crops, size_multiple: int = 1) -> Tensor:
    """Return crops as one tensor.

    Args:
        crops: (n, 3, h, w) of floats in 0..1, or a list of images, see `Image`, which are cut in their middle to the size of the smallest.
        size_multiple: heights and widths of images in a list become multiples of this.

    Returns:
        (n, 3, h, w) float32.

    Raises:
        DataError: shape, type or range is another, or a file cannot be read.
    """
    if isinstance(crops, Tensor):
        if not crops.is_floating_point():
            raise DataError(
                f"The crops are of type {str(crops.dtype).removeprefix('torch.')}, but floats in 0..1 are needed: for 8 bits, divide them "
                "by 255 (crops.float() / 255)."
            )
        if crops.dim() != 4 or crops.shape[1] != 3 or not crops.numel():
            raise DataError(
                f"The crops have the shape {tuple(crops.shape)}, but (n, 3, h, w) is needed: RGB, channels before pixels."
            )
        return require_unit_range(crops.float(), "The crops are")
    if isinstance(crops, str | Path) or not isinstance(crops, Sequence) or not crops:
        raise DataError(
            f"The crops are {crops if isinstance(crops, str | Path) else type(crops).__name__!r}, but a tensor (n, 3, h, w) or a list of images "
            "is needed. basicsr.draw_crops(folder, scale) cuts crops from a folder of HR images."
        )
    images = [as_image(image, f"crop {number}") for number, image in enumerate(crops)]
    h, w = (min(image.shape[axis] for image in images) // size_multiple * size_multiple for axis in (1, 2))
    if not h or not w:
        raise DataError(
            f"The smallest image of the crops is less than {size_multiple} pixels high or wide, which the network needs."
        )
    if any(image.shape[1:] != (h, w) for image in images):
        get_logger().info("The crops are of several sizes; of each the middle is taken, %d x %d pixels.", h, w)
    return torch.stack([_middle(image, h, w) for image in images])


def as_image(image: Image, what: str) -> Tensor:
    """Return an image as (3, h, w) float32 in 0..1.

    Args:
        image: see `Image`.
        what: what it is, for messages.

    Raises:
        DataError: shape, type or range is another, or a file cannot be read.
    """
    if isinstance(image, str | Path):
        return image_to_tensor(read_image(image))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise DataError(
                f"The array of {what} has the shape {image.shape}, but (h, w, 3) is needed: RGB, pixels before channels."
            )
        if image.dtype in (np.uint8, np.uint16):
            return image_to_tensor(image)
        if not np.issubdtype(image.dtype, np.floating):
            raise DataError(
                f"The array of {what} is of type {image.dtype}; uint8, uint16 or floats in 0..1 are needed."
            )
        image = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))  # h, w, 3 -> 3, h, w
    if not isinstance(image, Tensor):
        raise DataError(
            f"The image of {what} is an object of type {type(image).__name__}, not a file, an array or a tensor."
        )
    if image.dim() != 3:
        raise DataError(f"The tensor of {what} has the shape {tuple(image.shape)}, but (3, h, w) is needed.")
    return as_crops(image[None])[0]


def _middle(image: Tensor, h: int, w: int) -> Tensor:
    top, left = (image.shape[1] - h) // 2, (image.shape[2] - w) // 2
    return image[:, top : top + h, left : left + w]
