"""Overlapping squares cut out of images, as BasicSR's extract_subimages.py cuts them: small files load fast in a training."""

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from basicsr.data.pairs import NAME_TEMPLATES, files_by_name, lq_name, size_of
from basicsr.utils.errors import DataError, UserError, explained
from basicsr.utils.files import write_json
from basicsr.utils.image import read_image, write_image
from basicsr.utils.image_header import any_size, glance
from basicsr.utils.resize import crop_to_multiple, downscale_image
from prepared_folders import Layout, images_if_any, parallel

BORDER = 2
"""LR pixels at the border of a sub-image that depend on what lies outside: it is cut out of the LR image of the whole picture."""
_NAME = re.compile(r"(.+)_s\d{3,}")


@dataclass(frozen=True)
class Cut:
    """Where squares are cut out, in HR pixels.

    Attributes:
        crop_size: side of the squares.
        step: between the beginnings of neighbours.
        thresh_size: what may be left over at the end of a line; where more is, a last square ends with the image.
    """

    crop_size: int
    step: int
    thresh_size: int

    def starts(self, length: int) -> list[int]:
        """Return where squares begin along a side of the image, none where it is shorter than a square."""
        starts = list(range(0, length - self.crop_size + 1, self.step))
        if starts and length - starts[-1] - self.crop_size > self.thresh_size:
            starts.append(length - self.crop_size)
        return starts

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return top and left of all squares of an image, line by line."""
        return [(top, left) for top in self.starts(height) for left in self.starts(width)]


def is_sub_image(name: str) -> bool:
    """Whether a name, without suffix, is one of a sub-image, such as `0001_s001`."""
    return _NAME.fullmatch(name) is not None


def cut_folder(files: Sequence[Path], layout: Layout, scales: Sequence[int], cut: Cut, workers: int) -> list[str]:
    """Cut the images of a folder, and their LR images, into a layout; return what went wrong, one sentence an image.

    Files that are there are left as they are, so that a run that was stopped is continued.

    Raises:
        DataError: sizes do not go with the scale factors, or the layout holds other images, or such that were cut otherwise.
    """
    for option, size in (("--crop_size", cut.crop_size), ("--step", cut.step)):
        for scale in scales:
            if size % scale:
                raise DataError(f"{option} {size} is no multiple of the scale factor {scale}. Choose one that is.")
    sources = files_by_name(files)
    held = {file.stem for file in images_if_any(layout.hr)}
    foreign = sorted(name for name in held if not (found := _NAME.fullmatch(name)) or found[1] not in sources)
    if foreign:
        raise DataError(f"'{layout.hr}' holds images of other pictures, such as {foreign[0]}. Choose another --out.")
    _record(layout.root / "sub_images.json", {**asdict(cut), "multiple": math.lcm(*scales)})
    work = functools.partial(_cut_image, layout=layout, scales=tuple(scales), cut=cut)
    return [problem for problem in parallel(work, sources.items(), workers) if problem]


def _record(file: Path, now: Mapping[str, int]) -> None:
    """Write how images are cut, or refuse where those that are there were cut otherwise.

    Before they are cut, sides are cropped to a multiple of all scale factors, so that where the last squares begin depends on these.
    """
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        with explained(DataError, f"'{file}' cannot be written"):
            write_json(file, now)
        return
    except (OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Remove it, or choose another --out.") from error
    if before != now:
        raise DataError(f"The images of '{file.parent}' were cut with {before}, not with {now}. Choose another --out.")


def _cut_image(job: tuple[str, Path], layout: Layout, scales: tuple[int, ...], cut: Cut) -> str | None:
    """Write those sub-images of one image that are not there yet; return what went wrong."""
    name, file = job
    try:
        with explained(DataError, f"The image '{file}' cannot be prepared"):
            multiple = math.lcm(*scales)
            width, height = (side // multiple * multiple for side in _size(file))
            places = cut.places(height, width)
            if not places:
                return f"The image '{file}' has {width}x{height} pixels, too few for sub-images of {cut.crop_size}; it is left out."
            targets = _targets(name, layout, scales, len(places))
            missing = {
                scale: [i for i, target in enumerate(own) if not target.exists()] for scale, own in targets.items()
            }
            image = read_image(file) if any(missing.values()) else None
            for scale, numbers in missing.items():
                if image is None or not numbers:
                    continue
                whole = image if scale == 1 else downscale_image(crop_to_multiple(image, scale), scale)
                side = cut.crop_size // scale
                for number in numbers:
                    top, left = (start // scale for start in places[number])
                    write_image(targets[scale][number], whole[top : top + side, left : left + side])
    except UserError as error:
        return str(error)
    return None


def _size(file: Path) -> tuple[int, int]:
    """Return width and height, by the header where that tells them."""
    with any_size():
        look = glance(file)
    if look is not None:
        return look.size
    width, height = size_of(read_image(file)).split("x")
    return int(width), int(height)


def _targets(name: str, layout: Layout, scales: tuple[int, ...], number: int) -> dict[int, list[Path]]:
    """Return the files of the sub-images of one image by scale factor, 1 for HR."""
    own = [f"{name}_s{index:03d}" for index in range(1, number + 1)]
    targets = {1: [layout.hr / f"{one}.png" for one in own]}
    for scale in scales:
        targets[scale] = [layout.lr(scale) / f"{lq_name(one, NAME_TEMPLATES[0], scale)}.png" for one in own]
    return targets
