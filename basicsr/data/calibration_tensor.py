"""Calibration sets as tensors of LR crops, in the forms that 2DQuant's script and its users save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr.utils.checkpoint import load_torch, unusual_form
from basicsr.utils.errors import CheckpointError, DataError

_OVERSHOOT = 0.5  # of a bicubic reduction that was not clipped
_REMEDY = "Make a set with scripts/make_calibration_set.py, or draw crops with calibration:data=null."


def load_calibration_tensor(path: Path, scale: int) -> Tensor:
    """Load LR crops from a .pth file; no code of it is run.

    2DQuant's script saves a batch of its training data: `{'lq': N,3,h,w, 'gt': N,3,h*scale,w*scale, 'lq_path', 'gt_path'}`. A
    tensor alone and a list of crops of one size, (3, h, w) each, are read as well.

    Args:
        path: the file.
        scale: the scale factor that the set must be made for; only a file with `gt` tells its own.

    Returns:
        N,3,h,w RGB float32 in 0..1.

    Raises:
        DataError: the file cannot be read, holds something else, values far from 0..1, or a set of another scale.
    """
    try:
        content = load_torch(path)
    except CheckpointError as error:
        raise DataError(f"The calibration set cannot be used: {error} Download it again. {_REMEDY}") from error
    lq = _crops_of(content, path)
    if not lq.numel():
        raise DataError(f"The calibration set '{path}' is empty: its crops have the shape {tuple(lq.shape)}. {_REMEDY}")
    if lq.ndim != 4 or lq.shape[1] != 3:
        raise DataError(f"The calibration set '{path}' holds crops of the shape {tuple(lq.shape)}. {_likely_form(lq)}")
    _check_scale(content, lq, scale, path)
    return require_unit_range(lq.float(), f"The crops in '{path}' are")


def _crops_of(content: Any, path: Path) -> Tensor:
    """Return what a file holds as one tensor."""
    if isinstance(content, Mapping):
        if "lq" not in content:
            names = ", ".join(f"'{name}'" for name in list(content)[:5])
            raise DataError(f"The calibration set '{path}' has no entry 'lq' with LR crops, only {names}. {_REMEDY}")
        content = content["lq"]
    if isinstance(content, list | tuple) and content and all(map(_is_crop, content)):
        crops = [crop[None] if crop.ndim == 3 else crop for crop in content]
        sizes = {tuple(crop.shape[1:]) for crop in crops}
        if len(sizes) > 1:
            raise DataError(
                f"The calibration set '{path}' holds crops of different sizes: {', '.join(map(str, sorted(sizes)))}. "
                "Cut all of them to one size."
            )
        content = torch.cat(crops)
    if not isinstance(content, Tensor) or unusual_form(content) is not None:
        raise DataError(
            f"The calibration set '{path}' holds {_kind(content)} where LR crops are looked for: a tensor 'lq' of the shape "
            f"N, 3, h, w, such a tensor alone, or a list of crops. {_REMEDY}"
        )
    return content


def _is_crop(content: Any) -> bool:
    return isinstance(content, Tensor) and content.ndim in (3, 4) and unusual_form(content) is None


def _kind(content: Any) -> str:
    if isinstance(content, Tensor):
        return unusual_form(content) or "a tensor"
    if isinstance(content, list | tuple):
        return "an empty list" if not content else f"a list of {type(content[0]).__name__}"
    return f"an object of type {type(content).__name__}"


def _likely_form(lq: Tensor) -> str:
    """Return what crops of a wrong shape probably are, and the remedy."""
    if lq.ndim == 4 and lq.shape[-1] == 3:
        return "They are laid out as height x width x channels: turn them with permute(0, 3, 1, 2)."
    if lq.shape[-3:-2] == (1,) or (lq.ndim == 3 and lq.shape[0] != 3):
        return "They are grey: networks need three channels, N, 3, h, w, which may be equal."
    return "They must be N, 3, h, w: number of crops, R, G and B, height, width."


def _check_scale(content: Any, lq: Tensor, scale: int, path: Path) -> None:
    gt = content.get("gt") if isinstance(content, Mapping) else None
    if not isinstance(gt, Tensor) or gt.ndim != 4:
        return
    found = gt.shape[-1] / lq.shape[-1]
    if found != scale:
        raise DataError(
            f"The calibration set '{path}' is for scale factor {found:g}, not {scale}: its HR crops ('gt') have {gt.shape[-1]} "
            f"pixels, its LR crops {lq.shape[-1]}. 2DQuant's script names every file cali_data_x3.pth; rename it."
        )


def require_unit_range(crops: Tensor, what: str) -> Tensor:
    """Return crops whose values lie in 0..1, or a little beyond, as those of a bicubic reduction that was not clipped.

    Args:
        crops: floats of any shape.
        what: begins the message, such as `The crops are`.

    Raises:
        DataError: values are not finite, or far from 0..1.
    """
    low, high = (float(bound) for bound in crops.aminmax())  # nan where a value is
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
        raise DataError(f"{what} not within 0..1, but within {low:g}..{high:g}. Divide pixels of 8 bits by 255.")
    return crops
