import errno
import logging
import os
import struct

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from basicsr.utils.errors import DataError
from basicsr.utils.image import (
    Picture,
    image_to_tensor,
    read_image,
    read_picture,
    tensor_to_image,
    write_image,
    write_picture,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def smooth():
    """An 8-bit RGB picture that survives JPEG, its channels all different."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)


def _write_with_opencv(path, pixels):
    ok, encoded = cv2.imencode(path.suffix, pixels)
    assert ok
    path.write_bytes(encoded.tobytes())


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path, random, suffix, smallest):
    image = random.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    write_image(tmp_path / f"image{suffix}", image, smallest=smallest)
    result = read_image(tmp_path / f"image{suffix}")
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, image)


def test_the_smallest_png_of_an_enlarged_crop_is_far_smaller(tmp_path, random):
    image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    for name, smallest in (("usual", False), ("smallest", True)):
        write_image(tmp_path / f"{name}.png", image, smallest=smallest)
    assert (tmp_path / "smallest.png").stat().st_size < 0.6 * (tmp_path / "usual.png").stat().st_size


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_keeps_the_order_of_the_channels(tmp_path, smooth, suffix):
    write_image(tmp_path / f"image{suffix}", smooth)
    assert np.abs(read_image(tmp_path / f"image{suffix}").astype(int) - smooth).max() <= 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_read_in_full(tmp_path, random, suffix):
    image = random.integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    write_image(tmp_path / f"image{suffix}", image)
    result = read_image(tmp_path / f"image{suffix}")
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".bmp"])
def test_16_bits_are_refused_where_they_would_be_lost(tmp_path, suffix):
    with pytest.raises(DataError, match="16 bits"):
        write_image(tmp_path / f"image{suffix}", np.zeros((4, 4, 3), np.uint16))


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint8)])
def test_grey_images_become_rgb(tmp_path, random, suffix, dtype):
    grey = random.integers(0, 256, (8, 9), dtype=dtype)
    _write_with_opencv(tmp_path / f"grey{suffix}", grey)
    result = read_image(tmp_path / f"grey{suffix}")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint8)])
def test_alpha_is_dropped_with_one_warning(tmp_path, random, caplog, suffix, dtype):
    bgra = random.integers(0, 256, (8, 9, 4), dtype=dtype)
    _write_with_opencv(tmp_path / f"a{suffix}", bgra)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), bgra[..., 2::-1])
    assert [record.message for record in caplog.records if "alpha" in record.message] == [
        "An image has an alpha channel; it is dropped, here and in all further images."
    ]


def test_the_orientation_tag_of_a_jpeg_is_applied(tmp_path, smooth):
    _, encoded = cv2.imencode(".jpg", smooth[..., ::-1])
    orientation_6 = (
        b"MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    segment = b"Exif\x00\x00" + orientation_6
    marker = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
    data = encoded.tobytes()
    (tmp_path / "photo.jpg").write_bytes(data[:2] + marker + segment + data[2:])
    (tmp_path / "plain.jpg").write_bytes(data)
    turned = np.rot90(read_image(tmp_path / "plain.jpg"), -1)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.jpg"), turned)


def test_paths_need_not_be_ascii(tmp_path, smooth):
    path = tmp_path / "Größe 图像" / "日本.png"
    write_image(path, smooth)
    np.testing.assert_array_equal(read_image(path), smooth)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png' does not exist"):
        read_image(tmp_path / "nowhere.png")


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="is a folder, not a file"):
        read_image(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png' is empty \(0 bytes\)\. Copy"):
        read_image(tmp_path / "empty.png")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("part", [0.3, 0.98])
def test_a_truncated_image_is_named(tmp_path, random, suffix, part):
    path = tmp_path / f"broken{suffix}"
    write_image(path, random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=rf"broken{suffix}' is damaged or is not an image that is read here\. Copy"):
        read_image(path)


def test_text_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("This is not a picture. " * 50)
    with pytest.raises(DataError, match="not an image"):
        read_image(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF"])
def test_other_names_of_jpeg_are_read_and_written(tmp_path, smooth, suffix):
    write_image(tmp_path / "a.jpg", smooth)
    write_image(tmp_path / f"a{suffix}", smooth)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), read_image(tmp_path / "a.jpg"))


def test_a_gif_is_read_but_not_written(tmp_path):
    colours = np.array([[[250, 10, 20], [0, 200, 30]], [[7, 8, 9], [90, 0, 255]]], np.uint8)
    PIL.Image.fromarray(colours).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif"), colours)
    with pytest.raises(DataError, match=r"b\.gif' cannot be written: its name must end in \.png"):
        write_image(tmp_path / "b.gif", colours)
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.gif' is damaged"):
        read_image(tmp_path / "a.gif")


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16383), (".jpg", 65500), (".jfif", 65500)])
def test_formats_hold_as_much_as_is_said(tmp_path, suffix, longest):
    write_image(tmp_path / f"a{suffix}", np.zeros((1, longest, 3), np.uint8))
    with pytest.raises(
        DataError, match=rf"would have {longest + 1}x1 pixels, but \{suffix} holds at most {longest} on a"
    ):
        write_image(tmp_path / f"b{suffix}", np.zeros((1, longest + 1, 3), np.uint8))


def test_what_an_encoder_refuses_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"a\.png' of 4x0 pixels cannot be encoded"):
        write_image(tmp_path / "a.png", np.zeros((0, 4, 3), np.uint8))


@pytest.mark.parametrize("frames", [1, 2])
def test_a_turned_webp_is_turned_once(tmp_path, random, frames):
    pixels = random.integers(0, 256, (5, 8, 3), dtype=np.uint8)
    image, exif = PIL.Image.fromarray(pixels), PIL.Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [image.rotate(180)]} if frames > 1 else {}
    image.save(tmp_path / "a.webp", lossless=True, exif=exif, **more)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), np.rot90(pixels, -1))


def test_pixels_of_other_types_are_refused(tmp_path):
    PIL.Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="float32; convert it to 8 or 16 bits"):
        read_image(tmp_path / "float.tif")


def test_an_image_needs_a_known_suffix(tmp_path):
    with pytest.raises(DataError, match="must end in"):
        write_image(tmp_path / "image.xyz", np.zeros((4, 4, 3), np.uint8))


def test_no_space_is_an_error_that_names_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "image.png"
    write_image(path, np.full((4, 4, 3), 7, np.uint8))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"image\.png' cannot be written: No space left on device"):
        write_image(path, np.zeros((4, 4, 3), np.uint8))
    assert read_image(path).max() == 7
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_image(tmp_path / "file" / "image.png", np.zeros((4, 4, 3), np.uint8))


def test_tensors_have_the_full_range():
    image = np.array([[[0, 128, 255]]], np.uint8)
    tensor = image_to_tensor(image)
    assert tensor.shape == (3, 1, 1)
    assert tensor.dtype == torch.float32
    assert tensor.flatten().tolist() == pytest.approx([0, 128 / 255, 1])
    assert image_to_tensor(np.array([[[0, 32768, 65535]]], np.uint16)).flatten().tolist() == pytest.approx(
        [0, 32768 / 65535, 1]
    )


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_images_survive_the_way_to_tensors_and_back(image):
    np.testing.assert_array_equal(tensor_to_image(image_to_tensor(image)), image)


def test_tensors_are_clipped_and_rounded_half_to_even():
    tensor = torch.tensor([-1.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 2.0, 0.0]).view(3, 2, 1)
    assert tensor_to_image(tensor).transpose(2, 0, 1).flatten().tolist() == [0, 0, 2, 2, 255, 0]


def test_profiles_of_16_bits_are_kept(tmp_path):
    """Other programs find the profile, and the pixels are the same."""
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 8, 3), dtype=np.uint16)
    for suffix in (".png", ".tif", ".tiff"):
        for alpha in (None, pixels[..., 0]):
            write_picture(tmp_path / f"a{suffix}", Picture(pixels, alpha, grey=False, profile=profile))
            with PIL.Image.open(tmp_path / f"a{suffix}") as image:
                assert image.info["icc_profile"] == profile
            again = read_picture(tmp_path / f"a{suffix}")
            np.testing.assert_array_equal(again.rgb, pixels)
            assert (again.alpha is None) == (alpha is None) and again.profile == profile


def small_tiff(bits, samples, compression=1):
    """Return a TIFF of 8x2 pixels of three samples; with a compression it only says that they are compressed."""
    lines = ["".join(format(level, f"0{bits}b") for level in line) for line in np.reshape(samples, (2, 24)).tolist()]
    data = b"".join(int(line, 2).to_bytes(3 * bits, "big") for line in lines)
    entries = {256: 8, 257: 2, 258: 146, 259: compression, 262: 2, 273: 152, 277: 3, 278: 2, 279: len(data)}
    kinds = {258: (3, 3)}  # the bits of the samples are three short numbers, behind the directory
    tags = [struct.pack("<HHII", key, *kinds.get(key, (4, 1)), value) for key, value in entries.items()]
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags)
    return start.ljust(146, b"\0") + struct.pack("<3H", bits, bits, bits) + data


def test_kinds_of_tiff_are_read_rightly_or_refused(tmp_path):
    """The right values are those that the file was written from, by a writer that knows all kinds."""
    tifffile = pytest.importorskip("tifffile")
    random, path = np.random.default_rng(0), tmp_path / "a.tif"
    eight, sixteen = (
        random.integers(1, np.iinfo(dtype).max, (32, 48, 4), dtype=dtype) for dtype in (np.uint8, np.uint16)
    )
    for pixels in (eight, sixteen):
        grey, rgb, rgba = pixels[..., 0], pixels[..., :3], pixels
        for values, expected, options in (
            (rgba, rgba, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
            (rgba, rgb, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
            (rgb, rgb, {"photometric": "rgb", "byteorder": ">"}),
            (rgb, rgb, {"photometric": "rgb", "bigtiff": True}),
            (rgb, rgb, {"photometric": "rgb", "tile": (16, 16)}),
            (rgb, rgb, {"photometric": "rgb", "compression": "deflate"}),
            (grey, grey, {"photometric": "minisblack"}),
            (np.iinfo(grey.dtype).max - grey, grey, {"photometric": "miniswhite"}),
        ):
            tifffile.imwrite(path, values, **options)
            read = read_picture(path)
            assert read.rgb.dtype == pixels.dtype and read.grey == (expected.ndim == 2), options
            found = (
                read.rgb[..., 0] if read.grey else read.rgb if read.alpha is None else np.dstack([read.rgb, read.alpha])
            )
            np.testing.assert_array_equal(found, expected, err_msg=str(options))
    tifffile.imwrite(path, eight[..., :2], photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig")
    np.testing.assert_array_equal(read_picture(path).rgb[..., 1], eight[..., 0])
    np.testing.assert_array_equal(read_picture(path).alpha, eight[..., 1])
    for values, options, kind in (
        (sixteen[..., :2], {"photometric": "minisblack", "planarconfig": "contig"}, "further channels beside grey"),
        (sixteen, {"photometric": "rgb", "extrasamples": ["assocalpha"]}, "colours that are multiplied by alpha"),
        (sixteen, {"photometric": "separated"}, "colours of kind 5"),
        (sixteen[..., :3].transpose(2, 0, 1).copy(), {"photometric": "rgb", "planarconfig": "separate"}, "each channel by itself"),
    ):  # fmt: skip
        tifffile.imwrite(path, values, **options)
        with pytest.raises(
            DataError, match=f"TIFF of 16 bits with {kind}, which is not read here. Save it again as PNG"
        ):
            read_picture(path)
    for bits in (10, 12, 14):  # the largest level becomes the largest of 16 bits
        levels = sixteen[:2, :8, :3] >> (16 - bits)
        levels[0, 0] = 2**bits - 1
        path.write_bytes(small_tiff(bits, levels))
        np.testing.assert_array_equal(read_picture(path).rgb, np.round(levels / (2**bits - 1) * 65535))
    tifffile.imwrite(path, eight[..., :2], photometric="miniswhite", extrasamples=["unassalpha"], planarconfig="contig")
    with pytest.raises(DataError, match=r"of a kind that is not read here: 2 channels of 8 bits, format 1, colours 0"):
        read_picture(path)
    path.write_bytes(small_tiff(8, eight[:2, :8, :3], compression=34712))  # JPEG 2000, of which OpenCV makes black
    with pytest.raises(DataError, match=r"3 channels of 8 bits.*compression 34712\. Save it again as PNG"):
        read_picture(path)
    tifffile.imwrite(path, sixteen[..., :3], photometric="rgb", compression="lzma")
    with pytest.raises(DataError, match=r"of a kind that is not read here: 3 channels of 16 bits.*compression 34925\."):
        read_picture(path)


def test_a_grey_png_with_a_transparent_level_has_alpha(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    PIL.Image.fromarray(grey).save(tmp_path / "a.png", transparency=40)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.rgb, grey[..., None].repeat(3, 2))
    np.testing.assert_array_equal(picture.alpha, np.where(grey == 40, 0, 255))
    PIL.Image.fromarray(grey > 100).save(tmp_path / "b.png", transparency=1)  # one bit a pixel
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").alpha, np.where(grey > 100, 0, 255))
