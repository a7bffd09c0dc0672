import io

import cv2
import numpy as np
import PIL.Image
import pytest

from basicsr.utils.image import Picture, read_picture, write_picture
from basicsr.utils.image_bmp import bmp_with_alpha


@pytest.mark.parametrize("width", [1, 5, 8])
def test_others_read_the_alpha_channel(width, tmp_path):
    pixels = np.random.default_rng(width).integers(0, 256, (7, width, 4), dtype=np.uint8)
    data = bmp_with_alpha(pixels)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), pixels)
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(image), pixels[..., [2, 1, 0, 3]])
    rgb = np.ascontiguousarray(pixels[..., 2::-1])
    write_picture(tmp_path / "a.bmp", Picture(rgb, pixels[..., 3], grey=False))
    read = read_picture(tmp_path / "a.bmp")
    np.testing.assert_array_equal(np.dstack([read.rgb, read.alpha]), np.dstack([rgb, pixels[..., 3]]))
