"""BMP with an alpha channel, since OpenCV before version 5 and Pillow write 32 bits without saying that the last 8 are alpha."""

import struct

import numpy as np

_BEFORE, _HEADER = 14, 108  # bytes of the file header, and of BITMAPV4HEADER
_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)  # of red, green, blue and alpha in a pixel
_WITH_MASKS = 3  # BI_BITFIELDS
_PIXELS_A_METRE = 2835  # 72 a inch
_SRGB = b"BGRs"  # LCS_sRGB, whose end points and gamma, the rest of the header, are not looked at


def bmp_with_alpha(pixels: np.ndarray) -> bytes:
    """Return a BMP of 32 bits a pixel.

    Args:
        pixels: H,W,4 BGRA, uint8.
    """
    height, width, _ = pixels.shape
    start = _BEFORE + _HEADER
    header = struct.pack("<IiiHHIIiiII", _HEADER, width, height, 1, 32, _WITH_MASKS, pixels.size, _PIXELS_A_METRE, _PIXELS_A_METRE, 0, 0)  # fmt: skip
    header = (header + struct.pack("<4I", *_MASKS) + _SRGB).ljust(_HEADER, b"\0")
    return b"BM" + struct.pack("<IHHI", start + pixels.size, 0, 0, start) + header + pixels[::-1].tobytes()
