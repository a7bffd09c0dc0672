"""Folders of high-resolution (HR, `gt`) images and their low-resolution (LR, `lq`) partners."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image
from basicsr.utils.image_folders import distinct_names, image_files
from basicsr.utils.meta_info import names_in_meta_info
from basicsr.utils.resize import crop_to_multiple, downscale_image

# How the field names the LR file of an HR image: `{}` is the name of the HR image without suffix, `{-_HR}` that without `_HR` at its end.
# `{-_x{scale}}` is for HR images that a network has made of the LR ones, see `upscale.py`.
NAME_TEMPLATES = (
    *("{}x{scale}", "{}", "{}_LRBI_x{scale}"),
    *(f"{{-{hr}}}{lr}" for hr in ("HR", "hr") for lr in ("LR", "lr", "LRx{scale}", "LR_x{scale}", "lr_x{scale}")),
    *(f"{{-{hr}}}{lr}" for hr in ("_HR", "_hr", "_GT", "_gt") for lr in ("", "x{scale}", "_x{scale}")),
    *(f"{{-{hr}}}{lr}" for hr, lr in (("GT", "LQ"), ("gt", "lq"), ("GT", "LR"), ("gt", "lr"))),
    "{-_x{scale}}",
)
_OTHER_SCALES = (2, 3, 4, 8)
_WITHOUT = re.compile(r"\{-([^{}]+)\}")


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
    dataroot_gt: str | Path,
    dataroot_lq: str | Path | None,
    scale: int,
    filename_tmpl: str | None = None,
    meta_info_file: str | Path | None = None,
) -> list[ImagePair]:
    """Pair the images of two folders by name.

    Args:
        dataroot_gt: folder of HR images.
        dataroot_lq: folder of LR images, or None where they are to be made.
        scale: the scale factor, which LR names may contain.
        filename_tmpl: name of an LR file without suffix: `{}` stands for the HR name, `{-_HR}` for the HR name without `_HR` at
            its end, `{scale}` for the scale factor. By default the one of `NAME_TEMPLATES` that fits most files.
        meta_info_file: list of the HR images to take, see `names_in_meta_info`; others, and LR images without one, are left out.

    Returns:
        The pairs, sorted by the name of the HR image.

    Raises:
        DataError: a folder is missing or empty, or HR and LR images do not match one to one; names the first of the files in
            question.
    """
    gt_files = files_by_name(listed_images(dataroot_gt, meta_info_file))
    if dataroot_lq is None:
        return [ImagePair(name, gt, None) for name, gt in gt_files.items()]
    lq_files = files_by_name(image_files(dataroot_lq))
    match = match_names(gt_files, lq_files, scale, filename_tmpl)
    if match.without_lq or (match.without_gt and meta_info_file is None):
        raise DataError(
            f"The {len(gt_files)} HR images in '{dataroot_gt}' and the {len(lq_files)} LR images in '{dataroot_lq}' do not "
            f"match (LR names are taken to be '{match.template}' at scale {scale}). HR without LR: "
            f"{first_of(match.without_lq)}; LR without HR: {first_of(match.without_gt)}. "
            f"{_names_remedy(gt_files, lq_files, scale, filename_tmpl)}"
        )
    return [ImagePair(name, gt, lq_files[match.lq_names[name]]) for name, gt in gt_files.items()]


def listed_images(folder: str | Path, meta_info_file: str | Path | None) -> list[Path]:
    """Return the images of a folder that a list names, sorted; all where there is no list.

    Raises:
        DataError: the folder is missing or empty, or the list cannot be read or names images that are not there.
    """
    files = image_files(folder)
    if meta_info_file is None:
        return files
    known = {file.name for file in files}
    names = set(names_in_meta_info(meta_info_file))
    if missing := sorted(names - known):
        raise DataError(
            f"The list '{meta_info_file}' names images that '{folder}' does not hold: {first_of(missing)}. Check that both "
            "belong together, or leave meta_info_file out to take all images."
        )
    return [file for file in files if file.name in names]


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
        (height, width), (lq_height, lq_width) = image.shape[:2], lq.shape[:2]
        raise DataError(
            f"The LR image '{pair.lq}' has {size_of(lq)} pixels (width x height), but at scale factor {scale} the HR image "
            f"'{pair.gt}' of {size_of(image)} needs {gt.shape[1] // scale}x{gt.shape[0] // scale}. "
            f"{_size_remedy((width, height), (lq_width, lq_height))}"
        )
    return lq, gt


def fits(gt_size: tuple[int, int], lq_size: tuple[int, int], scale: int) -> bool:
    """Whether an LR image belongs to an HR image by their sizes (width, height): the HR image is cropped to a multiple of the scale."""
    return lq_size == (gt_size[0] // scale, gt_size[1] // scale)


def _size_remedy(gt_size: tuple[int, int], lq_size: tuple[int, int]) -> str:
    """Return what to do about an LR image that does not fit, from both sizes (width, height)."""
    if lq_size[0] > gt_size[0] and lq_size[1] > gt_size[1]:
        return "The LR image is the larger one: exchange dataroot_gt and dataroot_lq."
    for other in _OTHER_SCALES:
        if fits(gt_size, lq_size, other):
            return f"The LR image is of scale factor {other}: name the folder of the other scale, or set 'scale' to {other}."
    return "Check that the folder is of this scale, or make it anew with scripts/prepare_data.py."


def _names_remedy(gt_names: Iterable[str], lq_names: Iterable[str], scale: int, filename_tmpl: str | None) -> str:
    """Return what to do about names that do not match: what they would match as, where there is such a thing."""
    if _match_one_to_one(lq_names, gt_names, scale, filename_tmpl):
        return "They match the other way round: exchange dataroot_gt and dataroot_lq."
    for other in _OTHER_SCALES:
        if other != scale and _match_one_to_one(gt_names, lq_names, other, filename_tmpl):
            return f"They match at scale factor {other}: name the folder of the other scale, or set 'scale' to {other}."
    return "Add or remove files, set filename_tmpl, or leave dataroot_lq out to have the LR images made."


def _match_one_to_one(gt_names: Iterable[str], lq_names: Iterable[str], scale: int, filename_tmpl: str | None) -> bool:
    match = match_names(gt_names, lq_names, scale, filename_tmpl)
    return not match.without_lq and not match.without_gt


def files_by_name(files: Iterable[Path]) -> dict[str, Path]:
    """Return the files by their name without suffix, in their order; of those that differ only in suffix, see `distinct_names`."""
    files = list(files)
    names = distinct_names(files, lambda _: ".png")
    return {names[file]: file for file in files}


def lq_name(name: str, template: str, scale: int) -> str:
    """Return the name, without suffix, of the LR image of the HR image `name`; empty where the template does not fit that name."""
    template = template.replace("{scale}", str(scale))
    end = _WITHOUT.search(template)
    if end is not None and (not name.endswith(end[1]) or name == end[1]):
        return ""
    return template.replace("{}", name) if end is None else _WITHOUT.sub(lambda _: name.removesuffix(end[1]), template)


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
