"""Reading and writing images. In numpy they are H,W,3 RGB, uint8 or uint16; as tensors 3,H,W RGB, float32 in 0..1.

The order of channels is changed from and to OpenCV's BGR here and nowhere else.
"""

import functools
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from basicsr.utils.errors import DataError, explained
from basicsr.utils.files import atomic_path
from basicsr.utils.image_bytes import read_bytes
from basicsr.utils.image_header import Header, is_cut_off, opened, read_header, turned

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".gif")
"""What is read. All but GIF are written, too."""

_SUFFIXES_OF_16_BITS = (".png", ".tif", ".tiff")
_SUFFIXES_WITH_ALPHA = (".png", ".tif", ".tiff", ".webp")
_SUFFIXES_WITH_PROFILE = (*_SUFFIXES_WITH_ALPHA, ".jpg", ".jpeg")
_MOST_PIXELS = 2**30  # that OpenCV decodes
_SMALLEST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6]  # 9 saves 2 % more of enlarged crops, and takes ten times as long
_LOSSLESS = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}
_JPEG_SIGNATURE, _GIF_SIGNATURE = b"\xff\xd8", b"GIF8"
_TIFF_SIGNATURES = (b"II", b"MM")
_TURNED_HERE = (b"\x89PNG", b"RIFF")  # PNG and WebP, whose tags OpenCV does not apply
_ENCODERS = {suffix: suffix for suffix in IMAGE_SUFFIXES if suffix != ".gif"}  # as OpenCV names them
_ENCODERS |= dict.fromkeys((".jfif", ".jpe"), ".jpg")
# of libwebp and of libjpeg
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
        _warn_about_alpha()
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
    if picture.profile and _can_carry(path, pixels, picture.profile):
        _write_with_profile(path, pixels, picture.profile)
    else:
        _write_pixels(path, pixels)


def _can_carry(path: Path, pixels: np.ndarray, profile: bytes) -> bool:
    """Return whether a file can hold a profile of such pixels; a warning tells of one that is dropped."""
    space = profile[16:20].strip().decode("ascii", "replace")  # see the header of ICC.1
    wanted = "GRAY" if pixels.ndim == 2 else "RGB"
    if path.suffix.lower() not in _SUFFIXES_WITH_PROFILE or pixels.dtype != np.uint8:
        _logger.warning("The colour profile is not kept in '%s': that takes 8 bits in PNG, TIFF, WebP or JPEG.", path)
    elif space != wanted:
        _logger.warning("The colour profile is for %s and not kept in '%s', which is %s.", space, path, wanted)
    else:
        return True
    return False


def _write_with_profile(path: Path, pixels: np.ndarray, profile: bytes) -> None:
    """Write grey, BGR or BGRA of 8 bits with an ICC profile, by Pillow, since OpenCV writes none."""
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
    if path.is_dir():
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
    pixels = _decode(data, path, header)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"The image '{path}' has pixels of type {pixels.dtype}; convert it to 8 or 16 bits per channel."
        )
    if header.pictures > 1:
        _warn_about_pages(str(path), header.pictures)
    return pixels, header.profile


def _as_rgb(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])  # BGR or BGRA to RGB


def _write_pixels(path: Path, pixels: np.ndarray, parameters: list[int] | None = None) -> None:
    """Encode what OpenCV takes (grey, BGR or BGRA) and write it; parameters are those of its encoder."""
    suffix = path.suffix.lower()
    check_writable(path, pixels.shape[0], pixels.shape[1], pixels.dtype)
    try:
        written, encoded = cv2.imencode(_ENCODERS[suffix], pixels, parameters or _LOSSLESS.get(suffix, []))
    except cv2.error:
        written = False
    if not written:
        raise DataError(
            f"The image '{path}' of {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be encoded; use .png."
        )
    with explained(DataError, f"The image '{path}' cannot be written"), atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _decode(data: bytes, path: str | Path, header: Header) -> np.ndarray:
    """Decode into H,W or H,W,3 BGR or H,W,4 BGRA, upright; from memory, since OpenCV cannot open every non-ASCII path itself."""
    if data.startswith(_GIF_SIGNATURE):
        return _decode_gif(data, path)
    # IMREAD_UNCHANGED shows whether there is alpha but turns TIFF only, IMREAD_COLOR turns all but has no alpha, as JPEG has none
    is_jpeg = data.startswith(_JPEG_SIGNATURE)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR if is_jpeg else cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None and header.size and math.prod(header.size) > _MOST_PIXELS:
        raise DataError(
            f"The image '{path}' has {header.size[0]}x{header.size[1]} pixels, more than the {_MOST_PIXELS} that are read. "
            "Cut it into parts."
        )
    if pixels is None or (is_jpeg and is_cut_off(data)):
        raise _damaged(path)
    if is_jpeg and header.mode == "L":
        return pixels[..., 0]
    if header.mode == "RGBA" and pixels.dtype == np.uint8 and data.startswith(_TIFF_SIGNATURES):
        return _decode_rgba_tiff(data)
    if header.mode == "CMYK":
        return pixels[..., :3]  # OpenCV converts the colours, and adds an alpha channel that is no part of the file
    return turned(pixels, header.orientation) if data.startswith(_TURNED_HERE) else pixels


def _decode_gif(data: bytes, path: str | Path) -> np.ndarray:
    """Decode the first picture of a GIF as `_decode` does, with Pillow, since OpenCV reads GIF from 4.11 on only."""
    try:
        with opened(data) as image:
            transparent = image.has_transparency_data
            pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(path) from error
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if transparent else cv2.COLOR_RGB2BGR)


def _decode_rgba_tiff(data: bytes) -> np.ndarray:
    """Decode a TIFF with 8 bits and alpha, by Pillow: OpenCV multiplies its colours by alpha."""
    with opened(data) as image:
        return cv2.cvtColor(np.asarray(PIL.ImageOps.exif_transpose(image)), cv2.COLOR_RGBA2BGRA)


def _damaged(path: str | Path) -> DataError:
    return DataError(
        f"The file '{path}' is damaged or is not an image. Copy or download it again, or take it out of the folder."
    )


@functools.lru_cache(maxsize=4096)
def _warn_about_pages(path: str, pictures: int) -> None:
    _logger.warning("'%s' holds %d pictures, pages or frames; only the first is read.", path, pictures)


@functools.cache
def _warn_about_alpha() -> None:
    _logger.warning("An image has an alpha channel; it is dropped, here and in all further images.")
