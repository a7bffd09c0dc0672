"""What a file says beside its pixels, as other programs write it, is read or told; the right values are Pillow's or made by hand."""

import io
import logging
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from basicsr.utils.errors import DataError
from basicsr.utils.image import Picture, read_image, read_picture, write_picture
from basicsr.utils.image_header import Header, glance, read_header
from tests.profiles import SRGB, with_profile

GREY = SRGB[:16] + b"GRAY" + SRGB[20:]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(path, image=None, **options):
    image = PIL.Image.fromarray(PIXELS) if image is None else image
    if path.suffix == ".webp":
        options.setdefault("lossless", True)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tif"])
def test_orientation_is_applied(tmp_path, suffix, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a{suffix}", exif=exif)
    with PIL.Image.open(path) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    tolerance = 8 if suffix == ".jpg" else 0  # of two decoders
    for read in (read_image(path), read_picture(path).rgb):
        assert read.shape == expected.shape and np.abs(read - expected).max() <= tolerance


def exif_of(orientation, kind, order):
    """Return EXIF with nothing but an orientation as a number of a kind: BYTE, SHORT or LONG."""
    code, letter = {"BYTE": (1, "B"), "SHORT": (3, "H"), "LONG": (4, "I")}[kind]
    value = struct.pack(order + letter, orientation).ljust(4, b"\0")
    return (
        (b"MM\0*" if order == ">" else b"II*\0")
        + struct.pack(order + "IHHHI", 8, 1, 0x0112, code, 1)
        + value
        + bytes(4)
    )


@pytest.mark.parametrize("kind", ["BYTE", "SHORT", "LONG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_orientation_is_applied_however_it_is_written(tmp_path, suffix, order, kind):
    plain = read_image(saved(tmp_path / f"plain{suffix}"))
    path = saved(tmp_path / f"a{suffix}", exif=b"Exif\0\0" + exif_of(8, kind, order))
    np.testing.assert_array_equal(read_image(path), np.rot90(plain))
    assert glance(path).size == (6, 9)


def chunk_of_png(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_tags_of_a_png_in_other_places(tmp_path):
    path = saved(tmp_path / "a.png")
    plain = path.read_bytes()
    exif = exif_of(6, "SHORT", ">")
    path.write_bytes(plain[:-12] + chunk_of_png(b"eXIf", exif) + plain[-12:])  # behind the pixels, as ExifTool does it
    np.testing.assert_array_equal(read_image(path), np.rot90(PIXELS, -1))
    assert glance(path) is None  # its pixels tell
    text = b"\nexif\n%8d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode()
    compressed = b"Raw profile type exif\0\0" + zlib.compress(text)  # as ImageMagick does it
    path.write_bytes(plain[:33] + chunk_of_png(b"zTXt", compressed) + plain[33:])
    np.testing.assert_array_equal(read_image(path), np.rot90(PIXELS, -1))
    assert glance(path).size == (6, 9)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tif"])
def test_an_orientation_in_xmp_alone_is_not_applied(tmp_path, suffix):
    """As in browsers, and in OpenCV."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    plain = read_image(saved(tmp_path / f"plain{suffix}"))
    path = saved(tmp_path / f"a{suffix}", **({"tiffinfo": {700: xmp}} if suffix == ".tif" else {"xmp": xmp}))
    if suffix == ".png":
        text = chunk_of_png(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        path.write_bytes(path.read_bytes()[:33] + text + path.read_bytes()[33:])
    np.testing.assert_array_equal(read_image(path), plain)
    assert glance(path).size == (9, 6)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".gif"])
def test_further_pictures_of_a_file_are_told(tmp_path, suffix, caplog):
    other = PIL.Image.fromarray(PIXELS[::-1].copy())
    path = saved(tmp_path / f"a{suffix}", save_all=True, append_images=[other, PIL.Image.fromarray(PIXELS)])
    with caplog.at_level(logging.WARNING):
        first = read_image(path)
        read_image(path)
    assert len(caplog.records) == 1 and f"a{suffix}' holds 3 pictures, pages or frames" in caplog.text
    if suffix != ".gif":
        np.testing.assert_array_equal(first, PIXELS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_a_profile_is_kept_with_the_pixels(tmp_path, suffix, mode):
    if suffix == ".webp" and mode == "L":
        pytest.skip("WebP has no grey")
    profile = GREY if mode == "L" else SRGB
    image = PIL.Image.fromarray(PIXELS).convert(mode)
    if mode == "RGBA":
        image.putalpha(PIL.Image.fromarray(PIXELS[..., 0]))
    picture = read_picture(
        saved(tmp_path / f"a{suffix}", image, icc_profile=profile, **({"exact": True} if suffix == ".webp" else {}))
    )
    assert picture.profile == profile
    write_picture(tmp_path / f"b{suffix}", picture)
    with PIL.Image.open(tmp_path / f"b{suffix}") as written:
        assert written.mode == mode and written.info["icc_profile"] == profile
        np.testing.assert_array_equal(np.asarray(written), np.asarray(image))


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_a_profile_that_pillow_does_not_see_is_read(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", PIL.Image.fromarray(PIXELS).quantize(16))
    pixels = read_image(path)
    path.write_bytes(with_profile(path.read_bytes(), SRGB))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.rgb, pixels)
    assert picture.profile == SRGB


@pytest.mark.parametrize(
    ("name", "dtype", "profile", "told"),
    [
        ("a.bmp", np.uint8, SRGB, "that takes PNG, TIFF, WebP or JPEG"),
        ("a.png", np.uint8, SRGB[:16] + b"CMYK" + SRGB[20:], "is for CMYK and not kept"),
        ("a.png", np.uint8, GREY, "is for GRAY and not kept"),
    ],
)
def test_a_profile_that_cannot_be_kept_is_told(tmp_path, caplog, name, dtype, profile, told):
    with caplog.at_level(logging.WARNING):
        write_picture(tmp_path / name, Picture(PIXELS.astype(dtype), None, grey=False, profile=profile))
    assert told in caplog.text
    np.testing.assert_array_equal(read_image(tmp_path / name), PIXELS)
    assert read_picture(tmp_path / name).profile is None


def test_a_grey_jpeg_is_grey(tmp_path):
    picture = read_picture(saved(tmp_path / "a.jpg", PIL.Image.fromarray(PIXELS).convert("L")))
    assert picture.grey and picture.rgb.shape == (6, 9, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_colour_without_alpha(tmp_path, suffix):
    red = PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    picture = read_picture(saved(tmp_path / f"a{suffix}", red))
    assert picture.alpha is None and not picture.grey
    assert picture.rgb[..., 0].min() > 200 and picture.rgb[..., 1:].max() < 60


def bilevel_png(width, height):
    """Return a PNG of one bit a pixel whose pixels are left out: what is asked is what its header makes of it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_image_that_is_too_large_is_not_called_damaged(tmp_path):
    (tmp_path / "map.png").write_bytes(bilevel_png(40_000, 27_000))
    with pytest.raises(
        DataError, match=r"map\.png' has 40000x27000 pixels, more than the 1073741824 that are read\. Cut"
    ):
        read_image(tmp_path / "map.png")
    limit = PIL.Image.MAX_IMAGE_PIXELS
    assert read_header(bilevel_png(40_000, 27_000)).size == (40_000, 27_000)
    assert PIL.Image.MAX_IMAGE_PIXELS == limit is not None


def test_what_pillow_cannot_read_has_no_header():
    assert read_header(b"no image") == read_header(b"") == Header()
    data = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(data, "PNG")
    assert read_header(data.getvalue()) == Header((9, 6), "RGB")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_colours_under_alpha_are_as_stored(tmp_path, suffix):
    image = PIL.Image.fromarray(PIXELS)
    image.putalpha(PIL.Image.fromarray(PIXELS[..., 0] | 1))
    picture = read_picture(saved(tmp_path / f"a{suffix}", image))
    np.testing.assert_array_equal(picture.rgb, PIXELS)
    np.testing.assert_array_equal(picture.alpha, PIXELS[..., 0] | 1)
