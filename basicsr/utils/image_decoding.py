"""Bytes of image files to pixels, upright: by OpenCV, and by Pillow what OpenCV gets wrong or does not know.

Pillow reduces 16 bits to 8. OpenCV multiplies the colours of a TIFF of 8 bits by alpha and drops the alpha of grey ones, gives black for
some compressions, takes the unused byte of a BMP for alpha, and reads no GIF and no animated WebP before version 4.11. Of an animated
PNG its versions differ in which picture is the first.
"""

import math
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from basicsr.utils.errors import DataError
from basicsr.utils.image_header import Header, is_cut_off, opened, turned
from basicsr.utils.memory import require_memory
from basicsr.utils.tiff_layout import TiffLayout, read_tiff_layout

_MOST_PIXELS = 2**30  # that OpenCV decodes
_BYTES_OF_A_PIXEL = 6  # held at once for certain: as decoded, and as three channels
_PNG, _JPEG, _GIF, _BMP, _RIFF = b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"RIFF"
_TURNED_HERE = (_PNG, _RIFF, _JPEG)  # not TIFF, which OpenCV turns
_DEPTH_OF_PNG = 24  # where its header has the bits of a sample
_GREY_MODES = ("1", "L")
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # it moved with version 5
_set_log_level(0)  # what goes wrong is told here, in a sentence with the name of the file


def decode(data: bytes, path: str | Path, header: Header) -> np.ndarray:
    """Decode into H,W or H,W,3 BGR or H,W,4 BGRA, upright; from memory, since OpenCV cannot open every non-ASCII path itself.

    Args:
        data: the file.
        path: for messages.
        header: of the file.

    Raises:
        DataError: the file is damaged, no image, too large for the memory or at all, or of a kind that is not read.
    """
    if header.size and math.prod(header.size) > _MOST_PIXELS:
        raise DataError(
            f"The image '{path}' has {header.size[0]}x{header.size[1]} pixels, more than the {_MOST_PIXELS} that are read. "
            "Cut it into parts."
        )
    if header.size:
        needed = math.prod(header.size) * _BYTES_OF_A_PIXEL
        require_memory(
            needed, f"to read the image '{path}' of {header.size[0]}x{header.size[1]} pixels", "Cut it into parts."
        )
    layout = read_tiff_layout(data)
    by_pillow = data.startswith((_GIF, _BMP)) or (header.pictures > 1 and _is_animation_of_8_bits(data))
    if layout is not None:
        pixels = _decode_tiff(data, path, layout)
    else:
        pixels = _by_pillow(data) if by_pillow else _by_opencv(data)
    if pixels is None or (data.startswith(_JPEG) and is_cut_off(data)):
        raise _unreadable(path, layout)
    if data.startswith(_JPEG) and header.mode == "L":
        pixels = pixels[..., 0]
    if data.startswith(_PNG) and pixels.ndim == 2 and header.transparent_grey is not None:
        pixels = _with_transparent_level(pixels, header.transparent_grey, data[_DEPTH_OF_PNG])
    return turned(pixels, header.orientation) if data.startswith(_TURNED_HERE) and not by_pillow else pixels


def _is_animation_of_8_bits(data: bytes) -> bool:
    return data.startswith(_RIFF) or (data.startswith(_PNG) and data[_DEPTH_OF_PNG] <= 8)


def _by_opencv(data: bytes) -> np.ndarray | None:
    # IMREAD_UNCHANGED shows whether there is alpha, and leaves CMYK as it is, which a JPEG may be
    jpeg = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    flag = jpeg if data.startswith(_JPEG) else cv2.IMREAD_UNCHANGED
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None


def _by_pillow(data: bytes) -> np.ndarray | None:
    """Decode into 8 bits, upright; None where Pillow cannot."""
    try:
        with opened(data) as image:
            transparent = image.has_transparency_data or image.mode in ("La", "RGBa")
            mode = "RGBA" if transparent else "L" if image.mode in _GREY_MODES and not data.startswith(_GIF) else "RGB"
            pixels = np.asarray(PIL.ImageOps.exif_transpose(image.convert(mode)))
    except Exception:  # Pillow meets damaged files with errors of any kind
        return None
    if mode == "L":
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if transparent else cv2.COLOR_RGB2BGR)


def _decode_tiff(data: bytes, path: str | Path, layout: TiffLayout) -> np.ndarray | None:
    if layout.bits <= 8:
        return _by_pillow(data)
    if layout.bits == 16 and (kind := layout.not_read_at_16_bits()):
        raise DataError(
            f"The image '{path}' is a TIFF of 16 bits with {kind}, which is not read here. Save it again as PNG of 16 bits."
        )
    pixels = _by_opencv(data)
    if pixels is None or pixels.dtype != np.uint16:
        return pixels
    if 8 < layout.bits < 16:  # OpenCV puts zeros behind them, so that white is not quite white
        pixels = ((pixels >> (16 - layout.bits)) * (65535 / (2**layout.bits - 1))).round().astype(np.uint16)
    if layout.white_is_zero:
        pixels = np.iinfo(pixels.dtype).max - pixels
    return pixels if layout.has_alpha or pixels.ndim == 2 else pixels[..., :3]


def _with_transparent_level(pixels: np.ndarray, level: int, depth: int) -> np.ndarray:
    """Return grey as BGRA, transparent where it has the level, which is one of `depth` bits."""
    largest = np.iinfo(pixels.dtype).max
    visible = pixels != level * largest // (2**depth - 1)
    return np.dstack([pixels, pixels, pixels, visible.astype(pixels.dtype) * largest])


def _unreadable(path: str | Path, layout: TiffLayout | None) -> DataError:
    if layout is not None:
        return DataError(
            f"The TIFF '{path}' is damaged, or of a kind that is not read here: {layout}. Save it again as PNG, or copy it again."
        )
    return DataError(
        f"The file '{path}' is damaged or is not an image that is read here. Copy or download it again, convert it to PNG, or take it "
        "out of the folder."
    )
