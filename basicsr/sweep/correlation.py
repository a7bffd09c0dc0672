"""Whether the error of quantization adds to that of the full-precision network or undoes a part of it, from PSNR and fidelity."""

import math
import statistics
from collections.abc import Mapping

Image = Mapping[str, float | None]


def error_correlation(quantized: Mapping[str, Image], full_precision: Mapping[str, Image]) -> float | None:
    """Return the correlation of FP - HR with Q - FP, for the outputs FP and Q of both networks: the mean over the images.

    The mean squared errors tell, since mse(Q, HR) = mse(FP, HR) + mse(Q, FP) + 2 mean((FP - HR)(Q - FP)); the product of
    the roots of both is what the last mean is in proportion to. With 0, a lower fidelity is a lower PSNR. Where it is below 0,
    the change that quantization makes is in part the change that the full-precision network would have needed.

    Args:
        quantized: `psnr` and `fidelity` in dB of each image.
        full_precision: `psnr` of the same images.

    Returns:
        A value in -1..1, up to the rounding of outputs to 8 bits, which PSNR is subject to and fidelity is not; None where
        there is no image on which both FP differs from HR and Q from FP.
    """
    values = []
    for name, image in quantized.items():
        own = _mean_squared_error(full_precision.get(name, {}).get("psnr"))
        error, change = _mean_squared_error(image.get("psnr")), _mean_squared_error(image.get("fidelity"))
        if own and change:
            values.append((error - own - change) / (2 * math.sqrt(own * change)))
    return statistics.fmean(values) if values else None


def _mean_squared_error(decibels: float | None) -> float:
    """Return the error, in parts of the squared peak; records hold infinite decibels as None."""
    return 0.0 if decibels is None else 10 ** (-decibels / 10)
