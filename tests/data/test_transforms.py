import numpy as np
import pytest

from basicsr.data.transforms import orient, paired_random_crop, random_orientation
from basicsr.utils.errors import DataError


def _pair(height, width, scale):
    """An LR image whose values are its coordinates, and the HR image that repeats each of its pixels."""
    rows, columns = np.mgrid[:height, :width]
    lq = np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)
    return lq, lq.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_crops_lie_at_the_same_place_in_both_images(scale):
    lq, gt = _pair(9, 13, scale)
    random = np.random.default_rng(0)
    corners = set()
    for _ in range(200):
        lq_crop, gt_crop = paired_random_crop(lq, gt, 6, scale, random, "a")
        assert lq_crop.shape == (6, 6, 3)
        np.testing.assert_array_equal(gt_crop, lq_crop.repeat(scale, axis=0).repeat(scale, axis=1))
        corners.add(tuple(lq_crop[0, 0, :2]))
    assert corners == {(top, left) for top in range(4) for left in range(8)}


def test_an_image_smaller_than_the_crop_is_named():
    lq, gt = _pair(4, 20, 2)
    with pytest.raises(DataError, match=r"'a\.png' has 40x8 pixels .* lq_size 5 at x2\. Set a smaller lq_size"):
        paired_random_crop(lq, gt, 5, 2, np.random.default_rng(0), "a.png")


def test_orientations_are_the_eight_of_a_square():
    image = np.arange(9)[:, None].reshape(3, 3, 1).repeat(3, axis=2)
    choices = [(h, v, r) for h in (False, True) for v in (False, True) for r in (False, True)]
    results = {orient(image, hflip=h, vflip=v, rot90=r).tobytes() for h, v, r in choices}
    turned = {np.rot90(np.fliplr(image) if flip else image, k).tobytes() for flip in (False, True) for k in range(4)}
    assert results == turned
    np.testing.assert_array_equal(orient(image), image)
    np.testing.assert_array_equal(orient(image, hflip=True), image[:, ::-1])
    np.testing.assert_array_equal(orient(image, rot90=True), image.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("use_hflip", "use_rot", "number"), [(True, True, 8), (True, False, 2), (False, True, 4), (False, False, 1)]
)
def test_only_the_wanted_orientations_are_drawn(use_hflip, use_rot, number):
    random = np.random.default_rng(0)
    drawn = {tuple(random_orientation(random, use_hflip, use_rot).values()) for _ in range(100)}
    assert len(drawn) == number
