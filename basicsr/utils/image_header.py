"""What the file of an image says beside its pixels: orientation, colour profile, pages. Read by Pillow, which decodes no pixel here.

OpenCV, which reads and writes the pixels, tells none of it in the versions that are supported; Pillow reduces colours of 16 bits to 8.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from basicsr.utils.image_bytes import open_ends
from basicsr.utils.image_profile import profile_in

_ORIENTATION = 0x0112  # tag of EXIF
_TAIL = 64  # bytes at the end of a file that are looked at
_GREY_MODES = ("1", "L", "LA", "La", "F")  # and those that begin with I, of 16 and 32 bits
_OF_EXIF = b"eXIf"  # kind of a chunk of PNG
_EXIF = ("exif", "Raw profile type exif")  # the second is ImageMagick's
_XMP = ("xmp", "XML:com.adobe.xmp")
_LATE = 1 << 16  # bytes at the end of a PNG in which tags behind the pixels are looked for
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_limit = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What Pillow tells of a file; the defaults where it cannot read it.

    Attributes:
        size: width and height in pixels as stored, before it is turned.
        mode: Pillow's name of the kind of pixels, such as `L` for grey and `CMYK`.
        orientation: 1 to 8, see EXIF; 1 is upright.
        profile: ICC profile.
        pictures: pages or frames.
        transparent_grey: the level of a grey PNG that is transparent, in the bits that the file stores.
    """

    size: tuple[int, int] | None = None
    mode: str = ""
    orientation: int = 1
    profile: bytes | None = None
    pictures: int = 1
    transparent_grey: int | None = None


def read_header(data: bytes) -> Header:
    """Return what a file says beside its pixels."""
    try:
        with opened(data) as image:
            tagged = _is_tagged(image) or _OF_EXIF in data
            transparent = image.info.get("transparency") if image.mode in ("1", "L", "I;16") else None
            if image.mode == "1" and transparent is not None:
                transparent = int(bool(transparent))  # some versions of Pillow tell 255, not 1
            return Header(
                image.size,
                image.mode,
                _orientation_of(image) if tagged else 1,
                image.info.get("icc_profile") or profile_in(data),
                getattr(image, "n_frames", 1),
                transparent,
            )
    except Exception:  # Pillow meets damaged headers with errors of any kind; whether there is an image, OpenCV tells
        return Header()


def _is_tagged(image: PIL.Image.Image) -> bool:
    """Whether a file says before its pixels how to turn it. Without this, Pillow would decode each PNG in search of a tag behind them."""
    return image.format == "TIFF" or any(key in image.info for key in _EXIF)


def without_xmp(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return an image that has forgotten its XMP, where Pillow looks for an orientation, too, unlike viewers and browsers."""
    for key in _XMP:
        image.info.pop(key, None)
    return image


def _orientation_of(image: PIL.Image.Image) -> int:
    """Return the orientation from EXIF; 1 where it is none of 1 to 8."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    if isinstance(orientation, bytes) and len(orientation) == 1:  # of the type BYTE, where the standard has SHORT
        orientation = orientation[0]
    return orientation if orientation in range(1, 9) else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return H,W or H,W,C pixels upright.

    Args:
        pixels: as stored.
        orientation: 1 to 8, as EXIF has it: 2 to 4 are mirrored, turned by 180 degrees, upside down; 5 to 8 swap the axes.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """Let Pillow open images of any size in the block: only headers are read, so that its guard against huge images is in the way."""
    with _limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def opened(data: bytes) -> PIL.Image.Image:
    """Open an image of any size; see `any_size`."""
    with any_size():
        return without_xmp(PIL.Image.open(io.BytesIO(data)))


def is_cut_off(jpeg: bytes) -> bool:
    """Whether pixels of a JPEG are missing at its end, which OpenCV fills with grey without a word."""
    if b"\xff\xd9" in jpeg[-_TAIL:]:
        return False
    try:
        with opened(jpeg) as image:
            image.load()
    except OSError:
        return True
    return False


@dataclass(frozen=True)
class Glance:
    """What the first and the last bytes of a file tell, of which no pixel was decoded.

    Attributes:
        size: width and height in pixels, upright.
        grey: one channel of colour.
        alpha: transparency beside the colours.
    """

    size: tuple[int, int]
    grey: bool
    alpha: bool


def glance(path: Path) -> Glance | None:
    """Look at the file of an image, inside of `any_size`; None where only its pixels can tell, such as where the end is missing."""
    try:
        with open_ends(path) as file, PIL.Image.open(file) as image:
            tagged = _is_tagged(image)
            sideways = tagged and _orientation_of(without_xmp(image)) >= 5
            grey = image.mode in _GREY_MODES or image.mode.startswith("I")
            alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
            size = image.size
            if isinstance(image, TiffImageFile):  # whose size some versions of Pillow give upright
                size = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
            told = tagged or image.format != "PNG" or not _is_tagged_late(file)
            return (
                Glance(size[::-1] if sideways else size, grey, alpha)
                if told and _ends_well(file, image.format)
                else None
            )
    except Exception:  # as in `read_header`
        return None


def _is_tagged_late(file: BinaryIO) -> bool:
    """Whether a PNG says behind its pixels how to turn it, as ExifTool writes it."""
    file.seek(max(0, file.seek(0, io.SEEK_END) - _LATE))
    return _OF_EXIF in file.read()


def _ends_well(file: BinaryIO, kind: str | None) -> bool:
    """Return whether a file has the end that its format demands; True for formats that demand none."""
    file.seek(0)
    start = file.read(12)
    length = file.seek(0, io.SEEK_END)
    file.seek(-min(length, _TAIL), io.SEEK_END)
    end = file.read()
    if kind == "PNG":
        return b"IEND" in end
    if kind == "JPEG":
        return b"\xff\xd9" in end
    if kind == "WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= length
    return True
