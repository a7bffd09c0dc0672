"""PSNR and SSIM against BasicSR's values, scikit-image and closed forms."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from basicsr.metrics.psnr_ssim_metric import calculate_psnr, calculate_ssim, rgb_to_y
from basicsr.utils.errors import DataError
from basicsr.utils.registry import METRIC_REGISTRY


def pair(shape=(24, 31, 3), seed=0):
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 256, shape, dtype=np.uint8)
    return first, np.clip(first + generator.normal(0, 12, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", ["y", "rgb"])
@pytest.mark.parametrize("metric", ["psnr", "ssim"])
def test_values_of_basicsr(reference, metric, channels):
    data = np.load(reference / "metrics.npz")
    calculate = METRIC_REGISTRY.get(f"calculate_{metric}")
    for i in range(len(data["names"])):
        for j, border in enumerate(data["crop_border"]):
            value = calculate(data[f"a{i}"], data[f"b{i}"], crop_border=int(border), test_y_channel=channels == "y")
            assert value == pytest.approx(data[f"{metric}_{channels}"][i, j], abs=1e-9), data["names"][i]


def test_y_channel_of_basicsr(reference):
    data = np.load(reference / "metrics.npz")
    for name in ("0", "6"):
        assert np.array_equal(rgb_to_y(data[f"a{name}"]), data[f"y_a{name}"])


def test_ssim_of_scikit_image():
    first, second = pair()
    _, expected = structural_similarity(
        first,
        second,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
        full=True,
    )
    value = calculate_ssim(first, second, crop_border=0, test_y_channel=False)
    assert value == pytest.approx(expected[5:-5, 5:-5].mean(), abs=1e-9)


def test_psnr_by_hand_and_border():
    first = np.full((20, 20, 3), 100, np.uint8)
    second = first + np.uint8(5)
    assert calculate_psnr(first, second, crop_border=0, test_y_channel=False) == pytest.approx(20 * math.log10(255 / 5))
    grey = 5 * 219 / 255  # Y of grey spans 16..235
    assert calculate_psnr(first, second, crop_border=0) == pytest.approx(20 * math.log10(255 / grey), abs=1e-4)
    second[3:-3, 3:-3] = first[3:-3, 3:-3]
    assert calculate_psnr(first, second, crop_border=3) == math.inf
    rest = (16**2 - 14**2) / 16**2  # share of pixels that still differ within the border
    expected = 20 * math.log10(255 / grey) - 10 * math.log10(rest)
    assert calculate_psnr(first, second, crop_border=2) == pytest.approx(expected, abs=1e-4)
    assert calculate_ssim(first, second, crop_border=3) == pytest.approx(1, abs=1e-12)


def test_sixteen_bits_have_the_same_scale():
    first, second = pair()
    wide = [image.astype(np.uint16) * 257 for image in (first, second)]
    for calculate in (calculate_psnr, calculate_ssim):
        assert calculate(*wide, crop_border=2) == pytest.approx(calculate(first, second, crop_border=2), abs=1e-6)


def test_images_that_cannot_be_compared():
    first, second = pair()
    with pytest.raises(DataError, match="24, 31, 3"):
        calculate_psnr(first, second[1:], crop_border=0)
    with pytest.raises(DataError, match="float64"):
        calculate_psnr(first / 255, second / 255, crop_border=0)
    with pytest.raises(DataError, match="border of 12"):
        calculate_psnr(first, second, crop_border=12)
    with pytest.raises(DataError, match="SSIM needs 11 x 11"):
        calculate_ssim(first, second, crop_border=7)
