"""The pictures of a group of rows: HR, bicubic and every method, for the slider of the page and side by side in one file."""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from basicsr.data.pairs import ImagePair, files_by_name, find_pairs, listed_images, load_pair
from basicsr.reporting.crops import most_different, tile
from basicsr.reporting.tables import Group, Row
from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image
from basicsr.utils.resize import upscale_image
from basicsr.utils.saved_images import saved_results

HR, BICUBIC = "HR", "bicubic"
TILE_CROP = 64
"""Side of the crops that stand side by side, in HR pixels."""
MOST_PICTURES = 6
_SIDES = (None, 512, 384, 288, 256, 224, 192, 160, 128, 96, 64)
"""Sides of the squares that are tried, in HR pixels, the whole picture first."""
_SAMPLE = 128
"""Side of what is encoded to learn about how much a picture takes, before all of them are encoded."""
_QUICK_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
"""Without a search for repetitions, which photos hardly have: a quarter more bytes than WebP in a twentieth of its time."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Views:
    """One picture in all its versions.

    Attributes:
        name: name of the picture.
        images: H,W,3 RGB uint8 of equal size, by label: HR, bicubic, then the labels of rows.
        notes: what was measured on it, by label, for those that were.
    """

    name: str
    images: Mapping[str, np.ndarray]
    notes: Mapping[str, str]


def views_of(group: Group, limit: int | None = None) -> tuple[list[Views], str]:
    """Return the pictures of a group that at least one evaluation has saved, and why there are none or fewer.

    Args:
        group: rows on one dataset.
        limit: at most so many pictures, the first by name; None for all.

    Returns:
        The pictures, and a sentence that is empty where nothing is missing.
    """
    saved = {row.label: files for row in group.rows if (files := _saved(row, group.dataset))}
    if not saved:
        return [], "No pictures: none of these evaluations ran with val:save_img=true."
    try:
        pairs = _files(group)
    except DataError as error:
        return [], f"No pictures: {error}"
    names = sorted(set.intersection(*(set(files) for files in saved.values())) & set(pairs))
    if not names:
        return (
            [],
            f"No pictures: what the evaluations saved and the pictures of '{group.dataset}' have no name in common.",
        )
    views = []
    for name in names[:limit]:
        try:
            views.append(_views(group, name, pairs[name], {label: files[name] for label, files in saved.items()}))
        except DataError as error:
            return [], f"No pictures: {error}"
    without = [row.label for row in group.rows if row.label not in saved and row.entry.images]
    remarks = [f"Only {len(views)} of {len(names)} pictures are shown."] if len(views) < len(names) else []
    remarks += [f"No pictures of {', '.join(without)}: saved only with val:save_img=true."] if without else []
    return views, " ".join(remarks)


def _saved(row: Row, dataset: str) -> dict[str, Path]:
    """Return the pictures that an evaluation saved, by name."""
    folder, suffix = row.entry.pictures, (row.entry.options.get("val") or {}).get("suffix")
    return saved_results(folder, dataset, suffix) if folder is not None else {}


def _files(group: Group) -> dict[str, ImagePair | Path]:
    """Return the files of a dataset by name, found through the options of a row: pairs, or LR files where there is no HR.

    Raises:
        DataError: no row knows the dataset, or its files are not where they were.
    """
    for row in group.rows:
        for options in (row.entry.options.get("datasets") or {}).values():
            if options.get("name") != group.dataset:
                continue
            hr, lq, listed = (options.get(key) for key in ("dataroot_gt", "dataroot_lq", "meta_info_file"))
            number = options.get("num_images")
            if hr:
                pairs = find_pairs(hr, lq, group.scale, options.get("filename_tmpl"), listed)[:number]
                return {pair.name: pair for pair in pairs}
            if lq:
                return dict(list(files_by_name(listed_images(lq, listed)).items())[:number])
    raise DataError(
        f"no folder has an options.yml that tells where the HR pictures of '{group.dataset}' are. Evaluate again, which writes it."
    )


def _views(group: Group, name: str, pair: ImagePair | Path, files: Mapping[str, Path]) -> Views:
    if isinstance(pair, ImagePair):
        lq, hr = (_eight_bits(image) for image in load_pair(pair, group.scale))
        images = {HR: hr, BICUBIC: upscale_image(lq, group.scale)}
    else:
        images = {BICUBIC: upscale_image(_eight_bits(read_image(pair)), group.scale)}
    first, shape = next((label, image.shape) for label, image in images.items())
    images |= {label: _eight_bits(read_image(file)) for label, file in files.items()}
    for label, image in images.items():
        if image.shape != shape:
            raise DataError(
                f"the picture '{name}' of {label} has {image.shape[1]}x{image.shape[0]} pixels, but {first} has "
                f"{shape[1]}x{shape[0]}. Evaluate again, so that they belong together."
            )
    notes = {}
    for row in group.rows:
        values = row.entry.images.get(group.dataset, {}).get(name, {})
        notes[row.label] = ", ".join(group.phrase(key, value) for key, value in values.items())
    return Views(name, images, notes)


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else (image.astype(np.float32) / 257).round().astype(np.uint8)


@dataclass(frozen=True)
class Embedded:
    """A picture of the slider.

    Attributes:
        name: name of the picture.
        size: width and height of what is embedded.
        crop: where it was cut out, as a sentence; empty for a whole picture.
        versions: for each label the `data:` address of the pixels, without loss, and what was measured.
    """

    name: str
    size: tuple[int, int]
    crop: str
    versions: Sequence[Mapping[str, str]]


def embed(views: Sequence[Views], budget: int) -> list[Embedded]:
    """Encode pictures without loss, each whole or, where that takes too much, the square in which the versions differ most.

    Args:
        views: the pictures.
        budget: bytes of all of them together in the page.

    Returns:
        The pictures, cut to the largest of a few sizes that fits; fewer of them where even the smallest does not.
    """
    remaining = list(views)
    density = _density(remaining)
    while remaining:
        for side in _SIDES:
            places = [_place(one, side) for one in remaining]
            pixels = [
                height * width * len(one.images) for one, (_, _, height, width) in zip(remaining, places, strict=True)
            ]
            if sum(pixels) * density > budget:
                continue
            embedded = [_embed(one, place) for one, place in zip(remaining, places, strict=True)]
            spent = sum(len(version["source"]) for picture in embedded for version in picture.versions)
            if spent <= budget:
                return embedded
            density = max(density, spent / sum(pixels))
        remaining.pop()
    return []


def _density(views: Sequence[Views]) -> float:
    """Return about how many bytes a pixel takes, from the middle of each picture's last version."""
    spent, pixels = 0, 0
    for one in views:
        image = list(one.images.values())[-1]
        top, left = (max(0, side - _SAMPLE) // 2 for side in image.shape[:2])
        sample = image[top : top + _SAMPLE, left : left + _SAMPLE]
        spent += len(_data_address(sample))
        pixels += sample.shape[0] * sample.shape[1]
    return spent / max(1, pixels)


def _embed(views: Views, place: tuple[int, int, int, int]) -> Embedded:
    top, left, height, width = place
    whole = next(iter(views.images.values())).shape[:2] == (height, width)
    where = f"{width} x {height} pixels from ({left}, {top}), where the versions differ most"
    versions = [
        {
            "label": label,
            "source": _data_address(image[top : top + height, left : left + width]),
            "note": views.notes.get(label, ""),
        }
        for label, image in views.images.items()
    ]
    return Embedded(views.name, (width, height), "" if whole else where, versions)


def _place(views: Views, side: int | None) -> tuple[int, int, int, int]:
    """Return top, left, height and width of what is shown; a picture smaller than the square is shown whole."""
    height, width = next(iter(views.images.values())).shape[:2]
    if side is None or min(height, width) <= side:
        return 0, 0, height, width
    top, left = most_different([image for label, image in views.images.items() if label != BICUBIC], side)
    return int(top), int(left), side, side


def _data_address(image: np.ndarray) -> str:
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), _QUICK_PNG)
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def side_by_side(group: Group, views: Sequence[Views]) -> np.ndarray:
    """Return one row of crops for each picture: HR, bicubic and the methods, where these differ most.

    Args:
        group: the rows that the pictures belong to.
        views: the pictures, each at least `TILE_CROP` pixels high and wide.

    Returns:
        H,W,3 RGB uint8.
    """
    rows = []
    for one in views:
        top, left = most_different([image for label, image in one.images.items() if label != BICUBIC], TILE_CROP)
        texts = {HR: (HR, one.name), BICUBIC: (BICUBIC, "")}
        for row in group.rows:
            psnr = row.entry.images.get(group.dataset, {}).get(one.name, {}).get("psnr")
            bits = f" {row.entry.bits} bit" if row.entry.quantized else ""
            texts[row.label] = (f"{row.entry.method}{bits}", "" if psnr is None else f"{psnr:.2f} dB")
        rows.append(
            np.hstack([tile(image, top, left, TILE_CROP, *texts[label]) for label, image in one.images.items()])
        )
    return np.vstack(rows)
