"""How results are rounded in files."""

import math
from collections.abc import Mapping
from typing import Any

RESULT_DIGITS = {"psnr": 4, "ssim": 6, "fidelity": 4, "seconds": 1}
OTHER_DIGITS = 6
"""Of metrics that are not named above."""


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Round results for files; a value that is not finite (the PSNR of identical images) becomes None."""
    return {key: _rounded(value, RESULT_DIGITS.get(key, OTHER_DIGITS)) for key, value in values.items()}


def _rounded(value: Any, digits: int) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, digits) if math.isfinite(value) else None
