"""Folders of high-resolution (HR, `gt`) images and their low-resolution (LR, `lq`) partners."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image
from basicsr.utils.image_folders import image_files
from basicsr.utils.resize import crop_to_multiple, downscale_image

# How the field names the LR file of an HR image: `{}` is the name of the HR image without suffix.
NAME_TEMPLATES = ("{}x{scale}", "{}", "{}_LRBI_x{scale}")


@dataclass(frozen=True)
class ImagePair:
    """An HR image and its LR partner; without one, the LR image is made by Matlab's bicubic reduction."""

    name: str
    gt: Path
    lq: Path | None


@dataclass(frozen=True)
class NameMatch:
    """How names of HR and LR images belong together: LR name by HR name, and what is left over on either side."""

    template: str
    lq_names: dict[str, str]
    without_lq: list[str]
    without_gt: list[str]


def find_pairs(
    dataroot_gt: str | Path, dataroot_lq: str | Path | None, scale: int, filename_tmpl: str | None = None
) -> list[ImagePair]:
    """Pair the images of two folders by name.

    Args:
        dataroot_gt: folder of HR images.
        dataroot_lq: folder of LR images, or None where they are to be made.
        scale: the scale factor, which LR names may contain.
        filename_tmpl: name of an LR file without suffix: `{}` stands for the HR name, `{scale}` for the scale factor.
            By default the one of `NAME_TEMPLATES` that fits most files.

    Returns:
        The pairs, sorted by the name of the HR image.

    Raises:
        DataError: a folder is missing or empty, two images of a folder differ only in suffix, or HR and LR images do not
            match one to one; names the first of the files in question.
    """
    gt_files = files_by_name(image_files(dataroot_gt))
    if dataroot_lq is None:
        return [ImagePair(name, gt, None) for name, gt in gt_files.items()]
    lq_files = files_by_name(image_files(dataroot_lq))
    match = match_names(gt_files, lq_files, scale, filename_tmpl)
    if match.without_lq or match.without_gt:
        raise DataError(
            f"The {len(gt_files)} HR images in '{dataroot_gt}' and the {len(lq_files)} LR images in '{dataroot_lq}' do not "
            f"match (LR names are taken to be '{match.template}' at scale {scale}). HR without LR: "
            f"{first_of(match.without_lq)}; LR without HR: {first_of(match.without_gt)}. Add or remove files, set "
            "filename_tmpl, or leave dataroot_lq out to have the LR images made."
        )
    return [ImagePair(name, gt, lq_files[match.lq_names[name]]) for name, gt in gt_files.items()]


def load_pair(pair: ImagePair, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a pair: the HR image cropped at the bottom and right to a multiple of the scale, and its LR image.

    Returns:
        LR h,w,3 and HR h*scale,w*scale,3, both RGB, uint8 or uint16.

    Raises:
        DataError: a file cannot be read, the HR image is smaller than the scale, or the LR image is not of its size.
    """
    image = read_image(pair.gt)
    gt = crop_to_multiple(image, scale)
    if not gt.size:
        raise DataError(f"The HR image '{pair.gt}' has {size_of(image)} pixels, too few for the scale factor {scale}.")
    if pair.lq is None:
        return downscale_image(gt, scale), gt
    lq = read_image(pair.lq)
    if (lq.shape[0] * scale, lq.shape[1] * scale) != gt.shape[:2]:
        raise DataError(
            f"The LR image '{pair.lq}' has {size_of(lq)} pixels (width x height), but at scale factor {scale} the HR image "
            f"'{pair.gt}' of {size_of(image)} needs {gt.shape[1] // scale}x{gt.shape[0] // scale}. "
            "Check that the folder is of this scale, or make it anew with scripts/prepare_data.py."
        )
    return lq, gt


def files_by_name(files: Iterable[Path]) -> dict[str, Path]:
    """Return the files by their name without suffix.

    Raises:
        DataError: two files have the same name but for the suffix.
    """
    by_name: dict[str, Path] = {}
    for file in files:
        other = by_name.setdefault(file.stem, file)
        if other is not file:
            raise DataError(
                f"The images '{other.name}' and '{file.name}' in '{file.parent}' differ only in suffix; remove one."
            )
    return by_name


def lq_name(name: str, template: str, scale: int) -> str:
    """Return the name, without suffix, of the LR image of the HR image `name`."""
    return template.replace("{scale}", str(scale)).replace("{}", name)


def match_names(
    gt_names: Iterable[str], lq_names: Iterable[str], scale: int, filename_tmpl: str | None = None
) -> NameMatch:
    """Find the LR name of every HR name, with the given template or the one of `NAME_TEMPLATES` that fits most names."""
    known = set(lq_names)
    matches = []
    for template in NAME_TEMPLATES if filename_tmpl is None else (filename_tmpl,):
        expected = {name: lq_name(name, template, scale) for name in gt_names}
        without_lq = [name for name, partner in expected.items() if partner not in known]
        without_gt = sorted(known.difference(expected.values()))
        matches.append(NameMatch(template, expected, without_lq, without_gt))
    return min(matches, key=lambda match: len(match.without_lq))  # the first of equals


def size_of(image: np.ndarray) -> str:
    """Return `width x height` for messages."""
    return f"{image.shape[1]}x{image.shape[0]}"


def first_of(names: list[str], limit: int = 3) -> str:
    """Return the first names as a list for a message, with the number of those left out."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + rest) or "none"
