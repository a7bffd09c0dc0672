"""What tells the files that a run begins with from others of the same name: full-precision weights, calibration set, and a network to start from."""

import functools
from pathlib import Path

from basicsr.data.calibration_crops import chosen_file
from basicsr.sweep.plan import Run
from basicsr.utils.errors import DataError
from basicsr.utils.files import sha256_of


def absent_weights(run: Run) -> str | None:
    """Return the file of the full-precision weights that a run needs and that is not on disk; None where it has all."""
    path = run.options.path.pretrain_network_FP
    return None if path is None or run.kind == "bicubic" or Path(path).is_file() else path


def weights_digest(run: Run) -> str | None:
    """Return the SHA-256 of the full-precision weights, None where they are not on disk or there are none."""
    path = run.options.path.pretrain_network_FP
    if path is None or run.kind == "bicubic" or absent_weights(run):
        return None
    return _digest_of(Path(path))


def calibration_file(run: Run) -> Path | None:
    """Return the calibration set that a run has now; None where its crops are drawn, it needs none, or it is not on disk."""
    try:
        file = chosen_file(run.options.calibration) if run.kind == "quantized" else None
    except DataError:
        return None
    return file if file is not None and file.is_file() else None


def calibration_digest(run: Run) -> str | None:
    """Return the SHA-256 of the file of the calibration set that a run has now, None without one."""
    file = calibration_file(run)
    return None if file is None else _digest_of(file)


def start_digest(run: Run) -> str | None:
    """Return the SHA-256 of the quantized network that training starts from; None where there is none, or it is not on disk."""
    return _digest_of(Path(run.start)) if run.start is not None and Path(run.start).is_file() else None


def _digest_of(file: Path) -> str:
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest(file: Path, _size: int, _time: int) -> str:
    """Return the SHA-256 of a file; size and time tell the versions of a file apart in the cache."""
    return sha256_of(file)
