"""Files of pictures that are broken somewhere: cut, with flipped bits, with the header of another one, with sizes that lie."""

import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import PIL.Image
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.hostile import COLOUR, encoded

_NOISE = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
_NUMBERS = [0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]


def _whole() -> dict[str, list[bytes]]:
    image, noise = PIL.Image.fromarray(COLOUR), PIL.Image.fromarray(_NOISE)
    deep = _NOISE.astype(np.uint16) * 257
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return {
        "png": [
            encoded(noise),
            encoded(image.quantize(16), transparency=3),
            encoded(noise.convert("L")),
            encoded(image.convert("1"), exif=exif),
            cv2.imencode(".png", deep)[1].tobytes(),
        ],
        "jpg": [
            encoded(noise, "JPEG", exif=exif),
            encoded(image, "JPEG", progressive=True),
            encoded(image.convert("CMYK"), "JPEG"),
            encoded(noise.convert("L"), "JPEG"),
        ],
        "webp": [
            encoded(noise, "WEBP", lossless=True),
            encoded(image, "WEBP"),
            encoded(image.convert("RGBA"), "WEBP"),
            encoded(image, "WEBP", **frames),
        ],
        "bmp": [encoded(noise, "BMP"), encoded(image.quantize(16), "BMP"), encoded(image.convert("1"), "BMP")],
        "tif": [
            encoded(noise, "TIFF"),
            encoded(image, "TIFF", compression="tiff_lzw"),
            encoded(image.convert("CMYK"), "TIFF"),
            encoded(image, "TIFF", **frames),
            cv2.imencode(".tif", deep)[1].tobytes(),
        ],
        "gif": [encoded(image.quantize(16), "GIF"), encoded(image.quantize(16), "GIF", **frames)],
    }


WHOLE = _whole()
"""Pictures that are read, by format."""


def cut(data: bytes, at: float) -> bytes:
    """Return the first part of a file."""
    return data[: int(at * len(data))]


def flipped(data: bytes, places: list[float]) -> bytes:
    """Return a file with single bits flipped, at parts of its length."""
    changed = bytearray(data)
    for place in places:
        bit = int(place * 8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def lying(data: bytes, at: float, number: int, form: str) -> bytes:
    """Return a file with a number written over its first bytes, where sizes and lengths are."""
    start = int(at * min(len(data), 200))
    put = struct.pack(form, number & (2 ** (8 * struct.calcsize(form)) - 1))
    return data[:start] + put + data[start + len(put) :]


def swapped(data: bytes, other: bytes, length: int) -> bytes:
    """Return a file with the first bytes of another one."""
    return other[:length] + data[length:]


def spliced(data: bytes, other: bytes, at: float) -> bytes:
    """Return a file that goes on as another one does."""
    return data[: int(at * len(data))] + other[int(at * len(other)) :]


def broken(kind: str) -> SearchStrategy[bytes]:
    """Return a strategy for broken files of a format; some of the changes leave the picture as it is, or make another one."""
    data = st.sampled_from(WHOLE[kind])
    any_of = st.sampled_from([one for files in WHOLE.values() for one in files])
    part = st.floats(0, 1, exclude_max=True)
    numbers = st.sampled_from(_NUMBERS) | st.integers(0, 2**32 - 1)
    once: list[SearchStrategy[Callable[[bytes], bytes]]] = [
        part.map(lambda at: lambda file: cut(file, at)),
        st.lists(part, min_size=1, max_size=8).map(lambda places: lambda file: flipped(file, places) if file else file),
        st.tuples(part, numbers, st.sampled_from([">I", "<I", ">H", "<H", "B"])).map(
            lambda lie: lambda file: lying(file, *lie)
        ),
        st.tuples(any_of, st.integers(1, 64)).map(lambda change: lambda file: swapped(file, *change)),
        st.tuples(any_of, part).map(lambda change: lambda file: spliced(file, *change)),
        st.binary(max_size=40).map(lambda more: lambda file: file + more),
    ]
    changes = st.lists(st.one_of(once), min_size=1, max_size=3)

    def changed(file: bytes, steps: list[Callable[[bytes], bytes]]) -> bytes:
        for step in steps:
            file = step(file)
        return file

    return st.builds(changed, data, changes)
