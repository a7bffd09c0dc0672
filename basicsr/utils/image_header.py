"""What the file of an image says beside its pixels: orientation, colour profile, pages. Read by Pillow, which decodes no pixel here.

OpenCV, which reads and writes the pixels, tells none of it in the versions that are supported; Pillow reduces colours of 16 bits to 8.
"""

import io
import threading
import warnings
from dataclasses import dataclass

import numpy as np
import PIL.Image

_ORIENTATION = 0x0112  # tag of EXIF
_limit = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What Pillow tells of a file; the defaults where it cannot read it.

    Attributes:
        size: width and height in pixels as stored, before it is turned.
        mode: Pillow's name of the kind of pixels, such as `L` for grey and `CMYK`.
        orientation: 1 to 8, see EXIF; 1 is upright. Told of PNG, WebP and JPEG.
        profile: ICC profile.
        pictures: pages or frames.
    """

    size: tuple[int, int] | None = None
    mode: str = ""
    orientation: int = 1
    profile: bytes | None = None
    pictures: int = 1


def read_header(data: bytes) -> Header:
    """Return what a file says beside its pixels."""
    try:
        with opened(data) as image:
            tagged = "exif" in image.info  # without it, Pillow would decode a PNG in search of one behind its pixels
            orientation = image.getexif().get(_ORIENTATION, 1) if tagged else 1
            return Header(
                image.size,
                image.mode,
                orientation if orientation in range(1, 9) else 1,
                image.info.get("icc_profile"),
                getattr(image, "n_frames", 1),
            )
    except Exception:  # Pillow meets damaged headers with errors of any kind; whether there is an image, OpenCV tells
        return Header()


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


def opened(data: bytes) -> PIL.Image.Image:
    """Open an image of any size; only its header is read, so that Pillow's guard against huge images is in the way."""
    with _limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            return PIL.Image.open(io.BytesIO(data))
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
