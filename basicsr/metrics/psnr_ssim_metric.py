"""PSNR and SSIM as BasicSR defines them, on images height x width x 3 in RGB order.

uint16 images are taken to the scale 0..255 without rounding, so that both types have the same peak.
"""

import math

import cv2
import numpy as np

from basicsr.metrics.base import declare
from basicsr.utils.errors import DataError
from basicsr.utils.registry import METRIC_REGISTRY

LUMA_COEFFICIENTS = (65.481, 128.553, 24.966)  # of R, G, B in 0..1, for Y in 16..235 (ITU-R BT.601)
PEAK = 255.0

_GAUSSIAN_SIDE, _GAUSSIAN_SIGMA = 11, 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


@METRIC_REGISTRY.register()
@declare(label="PSNR", unit="dB", decimals=3, higher_is_better=True, compares="hr")
def calculate_psnr(img: np.ndarray, img2: np.ndarray, /, *, crop_border: int, test_y_channel: bool = True) -> float:
    """Return the peak signal-to-noise ratio of two images in dB; infinite for identical ones.

    Args:
        img, img2: uint8 or uint16, (h, w, 3), RGB.
        crop_border: pixels left out on every side.
        test_y_channel: compare the Y channel (16..235, not rounded) instead of the joint error of R, G and B.

    Raises:
        DataError: the images differ in size or type, or nothing is left of them.
    """
    first, second = _prepare(img, img2, crop_border, test_y_channel)
    return psnr_of_mean_squared_error(float(np.mean((first - second) ** 2)))


@METRIC_REGISTRY.register()
@declare(label="SSIM", unit="", decimals=4, higher_is_better=True, compares="hr", in_plots=False)
def calculate_ssim(img: np.ndarray, img2: np.ndarray, /, *, crop_border: int, test_y_channel: bool = True) -> float:
    """Return the structural similarity of two images (Wang et al. 2004): at most 1, for identical ones.

    Gaussian window of 11 x 11 with sigma 1.5, only where it lies within the image; mean over channels.

    Args:
        img, img2: uint8 or uint16, (h, w, 3), RGB.
        crop_border: pixels left out on every side.
        test_y_channel: compare the Y channel (16..235, not rounded) instead of each of R, G and B.

    Raises:
        DataError: the images differ in size or type, or less than 11 x 11 pixels are left of them.
    """
    first, second = _prepare(img, img2, crop_border, test_y_channel)
    if min(first.shape[:2]) < _GAUSSIAN_SIDE:
        raise DataError(
            f"SSIM needs {_GAUSSIAN_SIDE} x {_GAUSSIAN_SIDE} pixels, but {first.shape[0]} x {first.shape[1]} are left "
            f"without a border of {crop_border}."
        )
    return float(np.mean([_ssim(first[..., c], second[..., c]) for c in range(first.shape[-1])]))


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Return the Y channel (16..235) of RGB values 0..255, (h, w, 3) to (h, w).

    The result is float32, and float32 the values are before they are weighted: BasicSR rounds in these places.
    """
    y = (image.astype(np.float32) / np.float32(PEAK)) @ np.array(LUMA_COEFFICIENTS) + 16.0
    return (y / PEAK).astype(np.float32) * np.float32(PEAK)


def psnr_of_mean_squared_error(error: float) -> float:
    """Return the PSNR in dB that belongs to a mean squared error on the scale 0..255; infinite for 0."""
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def crop(image: np.ndarray, border: int) -> np.ndarray:
    """Return an image (h, w, ...) without `border` pixels on every side.

    Raises:
        DataError: the border is negative or leaves nothing.
    """
    if border < 0 or 2 * border >= min(image.shape[:2]):
        raise DataError(
            f"A border of {border} pixels cannot be cut from an image of {image.shape[0]} x {image.shape[1]}."
        )
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def _prepare(img: np.ndarray, img2: np.ndarray, border: int, y_channel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both images as float64 on the scale 0..255, (h, w, channels)."""
    if img.shape != img2.shape or img.ndim != 3 or img.shape[2] != 3:
        raise DataError(
            f"Images of the shapes {img.shape} and {img2.shape} cannot be compared; both must be (h, w, 3)."
        )
    prepared = []
    for image in (img, img2):
        if image.dtype not in (np.uint8, np.uint16):
            raise DataError(f"PSNR and SSIM compare images of uint8 or uint16, not {image.dtype}.")
        image = crop(image, border)
        image = image / 257.0 if image.dtype == np.uint16 else image
        prepared.append((rgb_to_y(image)[..., None] if y_channel else image).astype(np.float64))
    return prepared[0], prepared[1]


def _ssim(first: np.ndarray, second: np.ndarray) -> float:
    kernel = cv2.getGaussianKernel(_GAUSSIAN_SIDE, _GAUSSIAN_SIGMA)
    inside = slice(_GAUSSIAN_SIDE // 2, -(_GAUSSIAN_SIDE // 2))

    def local_mean(image: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(image, -1, kernel, kernel)[inside, inside]

    mean1, mean2 = local_mean(first), local_mean(second)
    mean_product, mean_squares = mean1 * mean2, mean1**2 + mean2**2
    covariance = local_mean(first * second) - mean_product
    variances = local_mean(first**2 + second**2) - mean_squares
    similarity = (2 * mean_product + _C1) * (2 * covariance + _C2)
    return float(np.mean(similarity / ((mean_squares + _C1) * (variances + _C2))))
