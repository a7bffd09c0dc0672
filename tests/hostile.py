"""A folder as careless people have it: pictures of every kind, and beside them what only looks like one."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

SIDE = 32
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
COLOUR = np.stack([ROWS * 7, COLUMNS * 7, (ROWS + COLUMNS) * 4], axis=2).astype(np.uint8)
STRANGE_NAMES = (
    *(" leading space.png", "-i.png", "100%d %s.png", "a'b\"c.png", "[1] {x}.png", "line\nbreak.png", "two..dots.png"),
    *(
        "Ünïcödé 图片 🦆.png",
        "x" * 240 + ".png",
        "UPPER.PNG",
        "$HOME;ls.png",
        "~.png",
        "trailing .png",
        "con.png",
        "a=b,c.png",
    ),
)


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options) -> bytes:
    """Return a picture as the bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_of(width: int, height: int, bits: int, colour: int, lines: bytes = b"") -> bytes:
    """Return a PNG whose header says what it is asked to, with any lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def good_pictures() -> dict[str, bytes]:
    """Return pictures that every command reads, by the name of their file."""
    image = PIL.Image.fromarray(COLOUR)
    grey, palette = image.convert("L"), image.quantize(16)
    deep = cv2.imencode(".png", COLOUR.astype(np.uint16) * 257)[1].tobytes()
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    pictures = {
        "colour.png": encoded(image),
        "grey.png": encoded(grey),
        "bilevel.png": encoded(image.convert("1")),
        "palette.png": encoded(palette),
        "palette with transparency.png": encoded(palette, transparency=3),
        "alpha.png": encoded(image.convert("RGBA")),
        "grey with alpha.png": encoded(image.convert("LA")),
        "interlaced.png": png_of(SIDE, SIDE, 8, 2, b"".join(b"\0" + row.tobytes() for row in COLOUR)),
        "16 bits.png": deep,
        "16 bits.tif": cv2.imencode(".tif", COLOUR.astype(np.uint16) * 257)[1].tobytes(),
        "photo.jpg": encoded(image, "JPEG"),
        "progressive.jpeg": encoded(image, "JPEG", progressive=True),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(image.convert("CMYK"), "TIFF"),
        "lab.tif": encoded(image.convert("LAB"), "TIFF"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "pages.tif": encoded(image, "TIFF", **frames),
        "animation.png": encoded(image, "PNG", **frames),
        "animation.webp": encoded(image, "WEBP", **frames),
        "animation.gif": encoded(palette, "GIF", **frames),
        "lossy.webp": encoded(image, "WEBP"),
        "windows.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "a jpeg.png": encoded(image, "JPEG"),
        "a png.jpg": encoded(image),
        "a webp.png": encoded(image, "WEBP", lossless=True),
        "a gif.bmp": encoded(palette, "GIF"),
        "words behind the end.png": encoded(image) + b"and more",
        "odd.png": encoded(image.resize((31, 33))),
    }
    return pictures | {name: encoded(image.rotate(90 * i % 360)) for i, name in enumerate(STRANGE_NAMES)}


def bad_pictures() -> dict[str, bytes]:
    """Return what is named as a picture and is none, by the name of its file."""
    image = PIL.Image.fromarray(COLOUR)
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF"}
    kinds_and_gif = {**kinds, ".gif": "GIF"}
    pictures = {}
    for suffix, kind in kinds_and_gif.items():
        whole = encoded(noise.quantize(64) if suffix == ".gif" else noise, kind)
        pictures[f"cut off{suffix}"] = whole[: len(whole) * 6 // 10]
    pictures |= {f"a few bytes{suffix}": encoded(image, kind)[:10] for suffix, kind in kinds_and_gif.items()}
    pictures |= {f"empty{suffix}": b"" for suffix in kinds_and_gif}
    pictures |= {f"text{suffix}": b"this is no picture\n" for suffix in kinds_and_gif}
    flipped = bytearray(encoded(noise))
    flipped[200:260] = bytes(60)
    return pictures | {
        "damaged inside.png": bytes(flipped),
        "archive.png": b"PK\x03\x04" + bytes(60),
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "no pixels.png": png_of(0, 0, 8, 2),
        "huge header.png": png_of(2**31 - 1, 2**31 - 1, 8, 2),
        "bomb.png": png_of(60_000, 60_000, 1, 0),
        "large header.png": png_of(30_000, 30_000, 8, 2),
        "wrong colour.png": png_of(4, 4, 8, 5, bytes(99)),
        "huge header.bmp": encoded(image, "BMP")[:18] + struct.pack("<ii", 2**30, 2**30) + encoded(image, "BMP")[26:],
        "negative.bmp": encoded(image, "BMP")[:18] + struct.pack("<ii", -5, -5) + encoded(image, "BMP")[26:],
        "floats.tif": encoded(PIL.Image.fromarray(ROWS.astype(np.float32)), "TIFF"),
        "32 bits.tif": encoded(PIL.Image.fromarray(ROWS.astype(np.int32)), "TIFF"),
        "16 bits cut off.tif": cv2.imencode(".tif", COLOUR.astype(np.uint16) * 257)[1].tobytes()[:500],
        "zeros.png": bytes(4096),
        "\x7f\x01control.png": b"\x89PNG",
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def write_traps(folder: Path) -> list[str]:
    """Write what is named as a picture but is no file with bytes to read; return the names."""
    (folder / "folder.png").mkdir(parents=True)
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "nowhere.png").symlink_to("is not there.png")
    (folder / "loop").symlink_to(".", target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    return ["circle.png", "nowhere.png", "pipe.png"]
