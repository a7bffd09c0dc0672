"""How faithful a quantized network is to its full-precision network: the PSNR between their outputs."""

import numpy as np
from torch import Tensor

from basicsr.metrics.base import declare
from basicsr.metrics.psnr_ssim_metric import LUMA_COEFFICIENTS, crop, psnr_of_mean_squared_error
from basicsr.utils.errors import DataError
from basicsr.utils.registry import METRIC_REGISTRY


@METRIC_REGISTRY.register()
@declare(label="fidelity", unit="dB", decimals=2, higher_is_better=True, compares="full_precision")
def calculate_fidelity(sr: Tensor | np.ndarray, sr2: Tensor | np.ndarray, /, *, crop_border: int) -> float:
    """Return the PSNR in dB between two outputs of networks on the Y channel; infinite for identical ones.

    Both are clipped to 0..1, as when they are saved, but not rounded to 8 bits, since the differences to be measured
    are often smaller than a grey level. With peak 255: 10 log10(255^2 / mean((Y(sr) - Y(sr2))^2)), Y in 16..235.

    Args:
        sr, sr2: RGB in 0..1; tensors (3, h, w) or arrays (h, w, 3), of any floating type.
        crop_border: pixels left out on every side.

    Raises:
        DataError: the shapes differ, or nothing is left within the border.
    """
    first, second = _as_image(sr), _as_image(sr2)
    if first.shape != second.shape or first.ndim != 3 or first.shape[2] != 3:
        raise DataError(f"Outputs of the shapes {tuple(sr.shape)} and {tuple(sr2.shape)} cannot be compared.")
    difference = crop(first, crop_border) - crop(second, crop_border)
    return psnr_of_mean_squared_error(float(np.mean((difference @ np.array(LUMA_COEFFICIENTS)) ** 2)))


def _as_image(sr: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(sr, Tensor):
        sr = np.moveaxis(sr.detach().double().cpu().numpy(), 0, -1)
    return np.clip(sr.astype(np.float64), 0, 1)
