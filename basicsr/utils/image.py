"""Reading and writing images. In numpy they are H,W,3 RGB, uint8 or uint16; as tensors 3,H,W RGB, float32 in 0..1.

The order of channels is changed from and to OpenCV's BGR here and nowhere else.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import torch
from torch import Tensor

from basicsr.utils.errors import DataError, explained
from basicsr.utils.files import atomic_path, why_no_folder
from basicsr.utils.image_bmp import bmp_with_alpha
from basicsr.utils.image_bytes import read_bytes
from basicsr.utils.image_decoding import decode
from basicsr.utils.image_header import read_header
from basicsr.utils.image_profile import png_with_profile, tiff_with_profile
from basicsr.utils.logger import warn_once

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".gif")
"""What is read. All but GIF are written, too."""

_SUFFIXES_OF_16_BITS = (".png", ".tif", ".tiff")
_SUFFIXES_WITH_ALPHA = (".png", ".tif", ".tiff", ".webp", ".bmp")
_PROFILE_INTO = {".png": png_with_profile} | dict.fromkeys((".tif", ".tiff"), tiff_with_profile)
_PROFILE_BY_PILLOW = (".webp", ".jpg", ".jpeg", ".jpe", ".jfif")
_SMALLEST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6]  # 9 saves 2 % more of enlarged crops, and takes ten times as long
_LOSSLESS = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}
_ENCODERS = {suffix: suffix for suffix in IMAGE_SUFFIXES if suffix != ".gif"}  # as OpenCV names them
_ENCODERS |= dict.fromkeys((".jfif", ".jpe"), ".jpg")
# of libwebp and of libjpeg
_LONGEST_NAME = 255  # bytes, of nearly all file systems
_LONGEST_SIDE = {".webp": 16383} | dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), 65500)

_logger = logging.getLogger(__name__)


def read_image(path: str | Path) -> np.ndarray:
    """Read a PNG, WebP, JPEG, BMP, TIFF or GIF file, of a GIF the first picture.

    Grey images are repeated into three channels; an alpha channel is dropped, with one warning per process. The orientation
    tag (EXIF) is applied, so that a photo looks as in a viewer. Of several pages or frames the first is read, with a warning.

    Returns:
        H,W,3 RGB, uint8, or uint16 for a file of 16 bits per channel.

    Raises:
        DataError: the file is missing, empty, damaged, no image, or its pixels are neither 8 nor 16 bits wide.
    """
    pixels, _ = _read_pixels(Path(path))
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        warn_once("An image has an alpha channel; it is dropped, here and in all further images.")
    return _as_rgb(pixels)


@dataclass(frozen=True)
class Picture:
    """A picture with everything that its file holds.

    Attributes:
        rgb: H,W,3 RGB, uint8 or uint16; the three channels of a grey picture are equal.
        alpha: H,W of the same type; None where the file has no alpha channel.
        grey: the file has one channel of colour.
        profile: ICC profile of the file.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    profile: bytes | None = None


def read_picture(path: str | Path) -> Picture:
    """Read an image file as `read_image` does, but keep its alpha channel and whether it is grey.

    Raises:
        DataError: as `read_image`.
    """
    pixels, profile = _read_pixels(Path(path))
    if pixels.ndim == 2:
        return Picture(_as_rgb(pixels), None, grey=True, profile=profile)
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    return Picture(_as_rgb(pixels), alpha, grey=False, profile=profile)


def write_picture(path: str | Path, picture: Picture) -> None:
    """Write a picture with its alpha channel, or as grey; see `write_image`.

    A grey picture becomes one channel, the luma of BT.601; with an alpha channel it is written in colour.

    Raises:
        DataError: as `write_image`, or the format has no alpha channel.
    """
    path = Path(path)
    height, width, _ = picture.rgb.shape
    check_writable(path, height, width, picture.rgb.dtype, alpha=picture.alpha is not None)
    if picture.alpha is not None:
        pixels = np.dstack([picture.rgb[..., ::-1], picture.alpha])
    else:
        pixels = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY) if picture.grey else picture.rgb[..., ::-1]
    profile = picture.profile if picture.profile and _can_carry(path, pixels, picture.profile) else None
    if profile and path.suffix.lower() in _PROFILE_BY_PILLOW:
        _write_by_pillow(path, pixels, profile)
    else:
        _write_pixels(path, pixels, profile=profile)


def _can_carry(path: Path, pixels: np.ndarray, profile: bytes) -> bool:
    """Return whether a file can hold a profile of such pixels; a warning tells of one that is dropped."""
    space = profile[16:20].strip().decode("ascii", "replace")  # see the header of ICC.1
    wanted = "GRAY" if pixels.ndim == 2 else "RGB"
    if path.suffix.lower() not in (*_PROFILE_INTO, *_PROFILE_BY_PILLOW):
        _logger.warning("The colour profile is not kept in '%s': that takes PNG, TIFF, WebP or JPEG.", path)
    elif space != wanted:
        _logger.warning("The colour profile is for %s and not kept in '%s', which is %s.", space, path, wanted)
    else:
        return True
    return False


def _write_by_pillow(path: Path, pixels: np.ndarray, profile: bytes) -> None:
    """Write grey, BGR or BGRA of 8 bits with an ICC profile, which OpenCV writes into no file."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    options = {".webp": {"lossless": True, "exact": True}}.get(path.suffix.lower(), {})
    kind = PIL.Image.registered_extensions()[path.suffix.lower()]
    with explained(DataError, f"The image '{path}' cannot be written"), atomic_path(path) as temporary:
        image.save(temporary, kind, icc_profile=profile, **options)


def write_image(path: str | Path, image: np.ndarray, *, smallest: bool = False) -> None:
    """Write an image atomically, in the format that the suffix names; WebP is written lossless, JPEG at OpenCV's quality.

    Args:
        path: ends in one of `IMAGE_SUFFIXES` but .gif; its folder is made if absent.
        image: H,W,3 RGB, uint8, or uint16 for PNG and TIFF.
        smallest: take the time to compress a PNG well, for pictures that are kept.

    Raises:
        DataError: the suffix names no format or one without 16 bits, or the file cannot be written.
    """
    parameters = _SMALLEST_PNG if smallest and Path(path).suffix.lower() == ".png" else None
    _write_pixels(Path(path), image[..., ::-1], parameters)


def check_writable(path: Path, height: int, width: int, dtype: np.dtype, alpha: bool = False) -> None:
    """Refuse an image that `path` cannot hold, so that nothing is computed in vain.

    Args:
        path: the file to write.
        height, width: in pixels.
        dtype: type of the pixels.
        alpha: whether there is an alpha channel.

    Raises:
        DataError: the suffix names no format that is written, or the format cannot hold such an image; `path` is a folder.
    """
    suffix = path.suffix.lower()
    if suffix not in _ENCODERS:
        raise DataError(f"The image '{path}' cannot be written: its name must end in {', '.join(_ENCODERS)}.")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise DataError(
            f"The image '{path}' cannot be written: its name has more than {_LONGEST_NAME} bytes. Give its input a shorter name."
        )
    if why_no_folder(path) is None:
        raise DataError(
            f"The image '{path}' cannot be written, since a folder has this name. Rename or remove the folder."
        )
    if dtype == np.uint16 and suffix not in _SUFFIXES_OF_16_BITS:
        raise DataError(f"The image '{path}' has 16 bits, which its format cannot hold; use .png or .tif.")
    if alpha and suffix not in _SUFFIXES_WITH_ALPHA:
        raise DataError(f"The image '{path}' has an alpha channel, which its format cannot hold; use .png.")
    if max(height, width) > (longest := _LONGEST_SIDE.get(suffix, max(height, width))):
        raise DataError(
            f"The image '{path}' would have {width}x{height} pixels, but {suffix} holds at most {longest} on a side. "
            "Use .png: an input that is PNG stays PNG."
        )


def image_to_tensor(image: np.ndarray) -> Tensor:
    """Return H,W,3 uint8 (0..255) or uint16 (0..65535) as 3,H,W float32 in 0..1."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)  # H,W,3 -> 3,H,W
    return torch.from_numpy(planes).div_(np.iinfo(image.dtype).max)


def tensor_to_image(tensor: Tensor, dtype: type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    """Return 3,H,W floats as H,W,3 uint8 (or uint16): clipped to 0..1, times 255 (65535), rounded half to even.

    For 8 bits this is BasicSR's `tensor2img`.
    """
    largest = np.iinfo(dtype).max
    pixels = tensor.detach().float().clamp(0, 1).mul(largest).round()
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy().astype(dtype))  # 3,H,W -> H,W,3


def _read_pixels(path: Path) -> tuple[np.ndarray, bytes | None]:
    """Return H,W or H,W,3 BGR or H,W,4 BGRA, uint8 or uint16, upright, and the ICC profile."""
    data = read_bytes(path)
    header = read_header(data)
    pixels = decode(data, path, header)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"The image '{path}' has pixels of type {pixels.dtype}; convert it to 8 or 16 bits per channel."
        )
    if header.pictures > 1:
        warn_once(f"'{path}' holds {header.pictures} pictures, pages or frames; only the first is read.")
    return pixels, header.profile


def _as_rgb(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])  # BGR or BGRA to RGB


def _write_pixels(
    path: Path, pixels: np.ndarray, parameters: list[int] | None = None, profile: bytes | None = None
) -> None:
    """Encode what OpenCV takes (grey, BGR or BGRA) and write it; parameters are those of its encoder, the profile is for PNG and TIFF."""
    suffix = path.suffix.lower()
    check_writable(path, pixels.shape[0], pixels.shape[1], pixels.dtype)
    encoded = _encoded(suffix, pixels, parameters)
    if encoded is None:
        raise DataError(
            f"The image '{path}' of {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be encoded; use .png."
        )
    data = _PROFILE_INTO[suffix](encoded, profile) if profile else encoded
    with explained(DataError, f"The image '{path}' cannot be written"), atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _encoded(suffix: str, pixels: np.ndarray, parameters: list[int] | None) -> bytes | None:
    """Return grey, BGR or BGRA as the bytes of a file; None where its format cannot hold so much."""
    if suffix == ".bmp" and pixels.ndim == 3 and pixels.shape[2] == 4:
        return bmp_with_alpha(pixels)
    try:
        written, encoded = cv2.imencode(_ENCODERS[suffix], pixels, parameters or _LOSSLESS.get(suffix, []))
    except cv2.error:
        return None
    return encoded.tobytes() if written else None
