"""Colour profiles into encoded images, since OpenCV writes none, and Pillow no colours of 16 bits; and out of those where Pillow sees none."""

import struct
import zlib

_END_OF_IHDR = 33  # of a PNG: signature, length, kind, header and checksum
_ICC_TAG, _UNDEFINED = 34675, 7  # of TIFF: where the profile is, and the type of its bytes
_ENTRY = 12  # bytes of an entry in a directory of TIFF
_BEFORE_HEADER, _BITMAPV5HEADER = 14, 124  # bytes of BMP
_OF_GIF = b"\x21\xff\x0bICCRGBG1012"  # start of the extension that holds a profile


def profile_in(data: bytes) -> bytes | None:
    """Return the ICC profile of a BMP or GIF, see BITMAPV5HEADER and the ICC's extension of GIF; None of another file."""
    if data.startswith(b"BM") and data[_BEFORE_HEADER] == _BITMAPV5HEADER and data[70:74] == b"DEBM":  # embedded
        start, length = struct.unpack_from("<II", data, 126)
        return data[_BEFORE_HEADER + start :][:length] or None
    if data.startswith(b"GIF8") and (start := data.find(_OF_GIF)) >= 0:
        return _blocks_of_gif(data, start + len(_OF_GIF)) or None
    return None


def _blocks_of_gif(data: bytes, place: int) -> bytes:
    """Return what lies in a row of blocks, each of which begins with its length, to the one of length 0."""
    content = b""
    while place < len(data) and data[place]:
        content += data[place + 1 :][: data[place]]
        place += 1 + data[place]
    return content


def png_with_profile(data: bytes, profile: bytes) -> bytes:
    """Return a PNG with an ICC profile, see the chunk iCCP of the PNG specification."""
    content = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return data[:_END_OF_IHDR] + chunk + data[_END_OF_IHDR:]


def tiff_with_profile(data: bytes, profile: bytes) -> bytes:
    """Return a TIFF of one page with an ICC profile: a copy of its directory with one entry more, at the end of the file."""
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    start = directory + 2
    entries = [data[start + _ENTRY * i :][:_ENTRY] for i in range(count)]
    data += b"\0" * (len(data) % 2)  # directories begin at even places
    place = len(data) + 2 + _ENTRY * (count + 1) + 4
    entries.append(struct.pack(f"{order}HHII", _ICC_TAG, _UNDEFINED, len(profile), place))
    entries.sort(key=lambda entry: struct.unpack_from(f"{order}H", entry))
    new = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + struct.pack(f"{order}I", 0) + profile
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[8:] + new
