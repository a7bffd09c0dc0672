"""Colour profiles in files of pictures where Pillow writes none."""

import struct

import PIL.ImageCms

SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def with_profile(data: bytes, profile: bytes) -> bytes:
    """Return a GIF, or a BMP with the header of 40 bytes, with an ICC profile in it."""
    if data.startswith(b"GIF8"):
        start = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)  # behind the palette
        parts = [profile[i:][:255] for i in range(0, len(profile), 255)]
        blocks = b"".join(bytes([len(part)]) + part for part in parts)
        return data[:start] + b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0" + data[start:]
    longer = 124 - 40  # bytes of BITMAPV5HEADER more
    (start,) = struct.unpack_from("<I", data, 10)
    rest = b"DEBM".rjust(20, b"\0") + bytes(48) + struct.pack("<4I", 4, len(data) + longer - 14, len(profile), 0)
    return data[:10] + struct.pack("<II", start + longer, 124) + data[18:54] + rest + data[54:] + profile
