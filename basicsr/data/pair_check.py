"""A look at the pairs of a data set before any work begins: sizes by the headers of files, and few files whole."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from basicsr.data.pairs import ImagePair, fits, load_pair
from basicsr.data.transforms import crop_problem
from basicsr.utils.errors import DataError
from basicsr.utils.image import read_image
from basicsr.utils.image_bytes import length_of
from basicsr.utils.image_header import Glance, any_size, glance

_DECODED = 64 * 2**20  # bytes of files that are decoded in about a second; the pixels of more are not looked at
_THREADS = 16  # headers of files on a network are waited for, not computed

_logger = logging.getLogger(__name__)

Looks = tuple[Glance | None, Glance | None]


def check_pairs(name: str, pairs: Sequence[ImagePair], scale: int, crop_size: int | None = None) -> None:
    """Find out what would end a run later: files that cannot be read, LR images of another size, images smaller than a crop.

    Only the headers of files are read, some thousand a second, and the files whose header leaves something open. Sets of less than
    `_DECODED` bytes are decoded whole. A warning tells of pairs of which one image is grey or has an alpha channel.

    Args:
        name: name of the data set, for messages.
        pairs: the pairs.
        scale: the scale factor.
        crop_size: side of the LR crops of a training, in pixels.

    Raises:
        DataError: names the first such file, and how many more there are.
    """
    files = [file for pair in pairs for file in (pair.gt, pair.lq) if file is not None]
    pool = ThreadPoolExecutor(min(_THREADS, 4 * (os.cpu_count() or 1)))
    try:
        with any_size():
            looks = dict(zip(files, pool.map(glance, files), strict=True))
        suspects = [pair for pair in pairs if not _is_fine(pair, looks, scale)]
        whole = sum(map(_bytes_of, files)) <= _DECODED
        _raise_first(list(pool.map(lambda pair: _problem(pair, scale), pairs if whole else suspects)))
    finally:
        pool.shutdown(cancel_futures=True)
    if crop_size is not None:
        _raise_first([_crop_problem(pair, looks[pair.gt], crop_size, scale) for pair in pairs])
    _tell(name, pairs, looks, "is grey", lambda look: look.grey)
    _tell(name, pairs, looks, "has an alpha channel, which is dropped", lambda look: look.alpha)


def _is_fine(pair: ImagePair, looks: dict[Path, Glance | None], scale: int) -> bool:
    """Whether the headers of a pair leave nothing open."""
    gt = looks[pair.gt]
    if gt is None or min(gt.size) < scale:
        return False
    lq = looks[pair.lq] if pair.lq is not None else None
    return pair.lq is None or (lq is not None and fits(gt.size, lq.size, scale))


def _problem(pair: ImagePair, scale: int) -> str | None:
    """Return what is wrong with a pair, by its pixels."""
    try:
        if pair.lq is None and min(read_image(pair.gt).shape[:2]) >= scale:
            return None  # its LR image, which takes longer than all else, is not needed
        load_pair(pair, scale)
    except DataError as error:
        return str(error)
    return None


def _crop_problem(pair: ImagePair, look: Glance | None, crop_size: int, scale: int) -> str | None:
    """Return why a pair is too small for training crops; one whose header tells no size is asked for its pixels."""
    if look is None:
        height, width = read_image(pair.gt).shape[:2]
    elif min(look.size) >= crop_size * scale:
        return None
    else:
        width, height = look.size
    return crop_problem(width // scale * scale, height // scale * scale, crop_size, scale, str(pair.gt))


def _bytes_of(file: Path) -> int:
    try:
        return length_of(file)
    except (OSError, DataError):
        return 0  # reading it tells


def _raise_first(problems: Sequence[str | None]) -> None:
    told = [problem for problem in problems if problem is not None]
    if told:
        more = (
            f" The same is wrong with {len(told) - 1} more of the {len(problems)} looked at." if len(told) > 1 else ""
        )
        raise DataError(told[0] + more)


def _tell(
    name: str, pairs: Sequence[ImagePair], looks: dict[Path, Glance | None], what: str, has: Callable[[Glance], bool]
) -> None:
    """Warn of pairs of which one image has something that the other lacks."""
    uneven = []
    for pair in pairs:
        gt, lq = looks[pair.gt], looks[pair.lq] if pair.lq is not None else None
        if gt is not None and lq is not None and has(gt) != has(lq):
            uneven.append((pair.gt, pair.lq) if has(gt) else (pair.lq, pair.gt))
    if uneven:
        one, other = uneven[0]
        _logger.warning(
            "Data set %s: '%s' %s, but '%s' is not so; %d of %d pairs are such. Check that they are the same pictures.",
            name, one, what, other, len(uneven), len(pairs),
        )  # fmt: skip
