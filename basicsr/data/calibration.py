"""Calibration sets: LR crops on which the bounds of quantizers are found.

A set is stored as a JSON list of crops (image, position, orientation) instead of pixels, with a checksum of every crop, so
that it can be read, versioned and reproduced. The sets released with 2DQuant, `{'lq': tensor}` in a .pth file, load too.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from basicsr.data.cache import ImageCache
from basicsr.data.calibration_tensor import load_calibration_tensor
from basicsr.data.pairs import ImagePair, find_pairs, first_of, load_pair, size_of
from basicsr.data.transforms import orient
from basicsr.utils.errors import DataError, explained
from basicsr.utils.files import write_json
from basicsr.utils.image import image_to_tensor
from basicsr.utils.signature import describe_validation_error

_MAX_DRAWS_PER_ITEM = 100
_CACHED_BYTES = 2**28  # of LR images that several crops are cut from


class CalibrationItem(pydantic.BaseModel):
    """One crop: its upper left corner in LR pixels, what was done to it after cutting, and the checksum of the result.

    Without a checksum, as in a list written by hand, a change of the image goes unnoticed.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    image: str
    x: int = pydantic.Field(ge=0)
    y: int = pydantic.Field(ge=0)
    hflip: bool
    rot90: bool
    sha256: str = ""


class CalibrationSet(pydantic.BaseModel):
    """The crops of a calibration set and the folders that they come from; `crop_size` is in LR pixels."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    scale: int = pydantic.Field(ge=1)
    crop_size: int = pydantic.Field(ge=1)
    dataroot_gt: str
    dataroot_lq: str | None = None
    items: list[CalibrationItem] = pydantic.Field(min_length=1)


def make_calibration_set(
    dataroot_gt: str,
    dataroot_lq: str | None,
    *,
    scale: int,
    num_images: int = 32,
    crop_size: int = 64,
    seed: int = 0,
    filename_tmpl: str | None = None,
    meta_info_file: str | None = None,
) -> CalibrationSet:
    """Choose random crops, in turn from every image, no two alike.

    Args:
        dataroot_gt: folder of HR images.
        dataroot_lq: folder of LR images, or None to make them by Matlab's bicubic reduction.
        scale: the scale factor.
        num_images: number of crops.
        crop_size: side of a crop in LR pixels.
        seed: chooses images, positions and orientations.
        filename_tmpl: name of an LR file, see `find_pairs`.
        meta_info_file: list of the HR images to take, see `find_pairs`.

    Raises:
        DataError: the folders cannot be used, an image is smaller than a crop, or there are not so many different crops.
    """
    pairs = find_pairs(dataroot_gt, dataroot_lq, scale, filename_tmpl, meta_info_file)
    random = np.random.default_rng(seed)
    order = random.permutation(len(pairs))
    chosen: set[CalibrationItem] = set()
    items = []
    cache: ImageCache[tuple[np.ndarray]] = ImageCache(_CACHED_BYTES)
    for number in range(num_images):
        pair = pairs[order[number % len(pairs)]]
        (lq,) = cache.get(pair.gt, functools.partial(_load_lq, pair, scale))
        item = _draw(pair, lq, crop_size, random, chosen)
        chosen.add(item)
        items.append(item.model_copy(update={"sha256": _checksum(_cut(lq, item, crop_size))}))
    return CalibrationSet(
        scale=scale, crop_size=crop_size, dataroot_gt=dataroot_gt, dataroot_lq=dataroot_lq, items=items
    )


def _load_lq(pair: ImagePair, scale: int) -> tuple[np.ndarray]:
    return (load_pair(pair, scale)[0],)


def save_calibration_set(path: str | Path, calibration_set: CalibrationSet) -> None:
    """Write a calibration set as JSON, atomically.

    Raises:
        DataError: the file cannot be written.
    """
    with explained(DataError, f"The calibration set '{path}' cannot be written"):
        write_json(Path(path), calibration_set.model_dump())


def load_calibration_set(
    path: str | Path, *, scale: int, dataroot_gt: str | None = None, dataroot_lq: str | None = None
) -> Tensor:
    """Load the LR crops of a calibration set.

    Args:
        path: a .json file of `save_calibration_set`, or a .pth file, see `load_calibration_tensor`.
        scale: the scale factor that the set must be made for.
        dataroot_gt: folder of HR images, by default the one that the JSON file names.
        dataroot_lq: folder of LR images, by default the one that the JSON file names, unless `dataroot_gt` is given.

    Returns:
        N,3,crop_size,crop_size RGB float32 in 0..1.

    Raises:
        DataError: the file cannot be read or is of another format or scale, an image is missing, or its pixels are not
            those that the set was made from.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return load_calibration_tensor(path, scale)
    calibration_set = _read_json(path)
    if calibration_set.scale != scale:
        raise DataError(
            f"The calibration set '{path}' is for scale factor {calibration_set.scale}, not {scale}. Choose another one, "
            "or make one with scripts/make_calibration_set.py."
        )
    if dataroot_gt is None:
        dataroot_gt, dataroot_lq = calibration_set.dataroot_gt, dataroot_lq or calibration_set.dataroot_lq
    pairs = {pair.name: pair for pair in find_pairs(dataroot_gt, dataroot_lq, scale)}
    missing = [item.image for item in calibration_set.items if item.image not in pairs]
    if missing:
        raise DataError(
            f"The folder '{dataroot_gt}' lacks images of the calibration set '{path}': "
            f"{first_of(list(dict.fromkeys(missing)))}. Restore them, or make a new set with "
            "scripts/make_calibration_set.py."
        )
    return _load_crops(calibration_set, pairs, path)


def crops_of(
    calibration_set: CalibrationSet, filename_tmpl: str | None = None, meta_info_file: str | None = None
) -> Tensor:
    """Return the LR crops of a set that was just made: N,3,crop_size,crop_size RGB float32 in 0..1.

    Raises:
        DataError: an image is missing or has changed.
    """
    folders = (calibration_set.dataroot_gt, calibration_set.dataroot_lq)
    pairs = find_pairs(*folders, calibration_set.scale, filename_tmpl, meta_info_file)
    return _load_crops(calibration_set, {pair.name: pair for pair in pairs}, Path(calibration_set.dataroot_gt))


def _load_crops(calibration_set: CalibrationSet, pairs: dict[str, ImagePair], path: Path) -> Tensor:
    images: dict[str, np.ndarray] = {}
    crops = []
    for item in calibration_set.items:
        if item.image not in images:
            images[item.image], _ = load_pair(pairs[item.image], calibration_set.scale)
        crop = _cut(images[item.image], item, calibration_set.crop_size)
        if item.sha256 and _checksum(crop) != item.sha256:
            raise DataError(
                f"The image '{item.image}' ('{pairs[item.image].gt}') is not the one that the calibration set '{path}' was "
                "made from, or its LR image was made by another method: the checksum of the crop differs. Restore the "
                "image, or make a new set with scripts/make_calibration_set.py."
            )
        crops.append(image_to_tensor(crop))
    return torch.stack(crops)


def _draw(
    pair: ImagePair, lq: np.ndarray, crop_size: int, random: np.random.Generator, chosen: set[CalibrationItem]
) -> CalibrationItem:
    if min(lq.shape[:2]) < crop_size:
        raise DataError(
            f"The LR image of '{pair.gt}' has {size_of(lq)} pixels, too few for calibration crops of {crop_size}. Choose a "
            "smaller crop_size, or remove the image."
        )
    for _ in range(_MAX_DRAWS_PER_ITEM):
        item = CalibrationItem(
            image=pair.name,
            x=int(random.integers(lq.shape[1] - crop_size + 1)),
            y=int(random.integers(lq.shape[0] - crop_size + 1)),
            hflip=bool(random.integers(2)),
            rot90=bool(random.integers(2)),
        )
        if item not in chosen:
            return item
    raise DataError(
        f"No further calibration crop of {crop_size} pixels is found in '{pair.gt}' that differs from the "
        f"{len(chosen)} chosen before. Ask for fewer or smaller crops, or add images."
    )


def _cut(lq: np.ndarray, item: CalibrationItem, crop_size: int) -> np.ndarray:
    crop = lq[item.y : item.y + crop_size, item.x : item.x + crop_size]
    if crop.shape[:2] != (crop_size, crop_size):
        raise DataError(
            f"The calibration crop of {crop_size} pixels at x={item.x}, y={item.y} does not lie within the LR image of "
            f"'{item.image}', which has {size_of(lq)} pixels. The image has changed; restore it or make a new set."
        )
    return orient(crop, hflip=item.hflip, rot90=item.rot90)


def _checksum(crop: np.ndarray) -> str:
    return hashlib.sha256(crop.astype(crop.dtype.newbyteorder("<")).tobytes(order="C")).hexdigest()


def _read_json(path: Path) -> CalibrationSet:
    remedy = "Check the path, or make a set with scripts/make_calibration_set.py."
    with explained(DataError, f"The calibration set '{path}' cannot be read", remedy):
        content = path.read_bytes()
    try:
        return CalibrationSet.model_validate(json.loads(content), strict=True)
    except pydantic.ValidationError as error:
        problems = describe_validation_error(error, "", CalibrationSet)
        raise DataError(f"The file '{path}' is not a calibration set. {problems}") from error
    except ValueError as error:
        raise DataError(f"The file '{path}' is not a calibration set: it is no JSON ({error}).") from error
