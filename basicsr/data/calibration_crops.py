"""The calibration set of a run: which one its options choose, its crops, and by what it is known again."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr.data.calibration import crops_of, load_calibration_set, make_calibration_set
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import sha256_of, why_no_file
from basicsr.utils.options import CalibrationOptions, Component

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationCrops:
    """LR crops and where they come from.

    Attributes:
        lq: N,3,h,w RGB float32 in 0..1.
        source: the file, or what they were drawn from.
        file: the file; None for crops that were drawn.
    """

    lq: Tensor
    source: str
    file: Path | None

    def identity(self) -> dict[str, Any]:
        """Return what tells this set from others: source, number and size of its crops, SHA-256 of their pixels and of the file."""
        pixels = self.lq.to("cpu", torch.float32).contiguous().numpy()
        digest = hashlib.sha256(str(tuple(self.lq.shape)).encode())
        digest.update(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
        return {
            "source": self.source,
            "crops": self.lq.shape[0],
            "height": self.lq.shape[2],
            "width": self.lq.shape[3],
            "sha256": digest.hexdigest(),
            "file_sha256": None if self.file is None else sha256_of(self.file),
        }


def candidates(options: CalibrationOptions) -> list[Path]:
    """Return the files that `calibration:data` names, the preferred one first."""
    data = options.data or []
    return [Path(data)] if isinstance(data, str) else [Path(file) for file in data]


def chosen_file(options: CalibrationOptions) -> Path | None:
    """Return the calibration set that a run uses: the first that is there of those that `calibration:data` names.

    Returns:
        None where it names none: crops are drawn. A single file that is not there is returned, to be told by who reads it.

    Raises:
        DataError: it names several, and none is there.
    """
    files = candidates(options)
    present = [file for file in files if why_no_file(file) is None]
    if present:
        return present[0]
    if len(files) < 2:
        return files[0] if files else None
    names = ", ".join(f"'{file}'" for file in files)
    raise DataError(
        f"None of the calibration sets {names} is there. Put one in place, make one with scripts/make_calibration_set.py, or draw "
        "crops with calibration:data=null."
    )


def calibration_crops(
    options: CalibrationOptions, training: Component | None, scale: int, seed: int
) -> CalibrationCrops:
    """Return the LR crops of a calibration set, from the file that the options choose or drawn from the training folder; the log says which.

    Args:
        options: the section `calibration`.
        training: the section `datasets:train`, for its folders.
        scale: the scale factor.
        seed: chooses crops where they are drawn.

    Raises:
        OptionsError: there is neither a file nor a training folder.
        DataError: the file or folders cannot be used.
    """
    file = chosen_file(options)
    if file is not None:
        folders = {"dataroot_gt": options.dataroot_gt, "dataroot_lq": options.dataroot_lq}
        chosen = CalibrationCrops(load_calibration_set(file, scale=scale, **folders), str(file), file)
        for absent in candidates(options)[: candidates(options).index(file)]:
            _logger.info("The calibration set '%s' is not there; '%s' is used in its place.", absent, file)
    else:
        chosen = _drawn(options, training, scale, seed)
    count, _, height, width = chosen.lq.shape
    digest = chosen.identity()["sha256"][:12]
    if file is not None:
        _tell_without_effect(options, {"num_images": count, "crop_size": height}, file)
    _logger.info(
        "Calibration set: %d crops of %d x %d LR pixels, %s (SHA-256 %s...).",
        count,
        height,
        width,
        chosen.source,
        digest,
    )
    return chosen


def _tell_without_effect(options: CalibrationOptions, held: dict[str, int], file: Path) -> None:
    """Warn of options that choose crops where the crops are those of a file, and others."""
    asked = {key: getattr(options, key) for key in held if key in options.model_fields_set}
    ignored = [f"calibration:{key}={value}" for key, value in asked.items() if value != held[key]]
    if ignored:
        _logger.warning(
            "%s has no effect: the calibration set '%s' holds %d crops of %d LR pixels. To draw others, give calibration:data=null.",
            " ".join(ignored), file, held["num_images"], held["crop_size"],
        )  # fmt: skip


def _drawn(options: CalibrationOptions, training: Component | None, scale: int, seed: int) -> CalibrationCrops:
    dataroot_gt, dataroot_lq = options.dataroot_gt, options.dataroot_lq
    template = listed = None
    if dataroot_gt is None:
        if training is None or training.get("dataroot_gt") is None:
            raise OptionsError("Calibration needs 'calibration:data', 'calibration:dataroot_gt' or 'datasets:train'.")
        template = training.get("filename_tmpl") if dataroot_lq is None else None
        listed = training.get("meta_info_file")
        dataroot_gt, dataroot_lq = training["dataroot_gt"], dataroot_lq or training.get("dataroot_lq")
    made = make_calibration_set(
        dataroot_gt,
        dataroot_lq,
        scale=scale,
        num_images=options.num_images,
        crop_size=options.crop_size,
        seed=seed,
        filename_tmpl=template,
        meta_info_file=listed,
    )
    return CalibrationCrops(crops_of(made, template, listed), f"drawn from '{dataroot_gt}' with seed {seed}", None)
