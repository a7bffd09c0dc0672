"""What OpenCV reads wrongly is read by Pillow; the right values are those that the files were made of."""

import io
import struct

import numpy as np
import PIL.Image
import pytest

from basicsr.utils.image import read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
FOURTH = np.random.default_rng(1).integers(0, 256, (5, 8), dtype=np.uint8)
RGB_MASKS = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)


def bmp(header, pixels):
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + pixels.size, 0, 0, start) + header + pixels[::-1].tobytes()


def header_of_bmp(length, bits, compression=0):
    return struct.pack("<IiiHHIIiiII", length, 8, 5, 1, bits, compression, 0, 2835, 2835, 0, 0)


@pytest.mark.parametrize(
    ("masks", "alpha"), [(struct.pack("<I", 0xFF000000), True), (struct.pack("<I", 0), False), (None, False)]
)
def test_the_fourth_byte_of_a_bmp_is_alpha_only_where_it_says_so(tmp_path, masks, alpha):
    header = (
        header_of_bmp(40, 32) if masks is None else header_of_bmp(108, 32, 3) + RGB_MASKS + masks + b"BGRs" + bytes(48)
    )
    (tmp_path / "a.bmp").write_bytes(bmp(header, np.dstack([PIXELS[..., ::-1], FOURTH])))
    picture = read_picture(tmp_path / "a.bmp")
    np.testing.assert_array_equal(picture.rgb, PIXELS)
    assert (picture.alpha is not None) == alpha
    if alpha:
        np.testing.assert_array_equal(picture.alpha, FOURTH)


def test_a_bmp_of_os_2(tmp_path):
    (tmp_path / "a.bmp").write_bytes(bmp(struct.pack("<IHHHH", 12, 8, 5, 1, 24), PIXELS[..., ::-1]))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.bmp").rgb, PIXELS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_of_an_animated_png_the_picture_is_read_that_every_viewer_shows(tmp_path, mode):
    """That is the one which need not belong to the animation."""
    first, *frames = (PIL.Image.fromarray(np.roll(PIXELS, i, 1)).convert(mode) for i in range(3))
    data = io.BytesIO()
    first.save(data, "PNG", save_all=True, default_image=True, append_images=frames)
    (tmp_path / "a.png").write_bytes(data.getvalue())
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.rgb, np.asarray(first.convert("RGB")))
    assert picture.grey == (mode == "L") and (picture.alpha is not None) == (mode == "RGBA")
