"""Histograms by the compiled loops, for float32 on the CPU. Where there is no C compiler, callers do with operators of torch."""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from basicsr.quant.kernels.library import load_histograms
from basicsr.utils.compiling import NotCompiledError

_NO_BIN, _NO_MEMORY = 1, 2
"""Outcomes of the loops."""


_enabled = True


@contextmanager
def counting_loops(enable: bool) -> Iterator[None]:
    """Let histograms of this process use the compiled loops within this block, or not. Counts and sums are the same bits either way."""
    global _enabled
    before, _enabled = _enabled, enable
    try:
        yield
    finally:
        _enabled = before


@cache
def _library() -> ctypes.CDLL | None:
    try:
        return load_histograms()
    except NotCompiledError:
        return None


def _library_for(values: Tensor) -> ctypes.CDLL | None:
    return _library() if _enabled and values.device.type == "cpu" and values.dtype == torch.float32 else None


def count_aligned(values: Tensor, exponent: int, first_bin: int, counts: Tensor, sums: Tensor, squares: Tensor) -> bool:
    """Add values to an aligned histogram in place; see `AlignedHistogram`.

    Args:
        values: float32, one axis.
        exponent: bins are 2**exponent wide.
        first_bin: index of the first bin.
        counts: int64 (bins,).
        sums: of fractions, float64 (bins,).
        squares: of fractions, float64, shape ().

    Returns:
        False where the loops cannot do it; nothing is counted then.

    Raises:
        ValueError: a value lies in no bin, or is not finite.
        MemoryError: the memory does not suffice.
    """
    library = _library_for(values)
    if library is None:
        return False
    values = values.contiguous()
    addresses = (tensor.data_ptr() for tensor in (counts, sums, squares))
    outcome = library.count_aligned(
        values.data_ptr(), len(values), math.ldexp(1.0, -exponent), first_bin, len(counts), *addresses
    )
    if outcome == _NO_BIN:
        raise ValueError(f"A value lies in none of the {len(counts)} bins of the histogram.")
    if outcome == _NO_MEMORY:
        raise MemoryError("The memory does not suffice for a histogram.")
    return True


def count_normalized(rows: Tensor, counts: Tensor, sums: Tensor, squares: Tensor) -> bool:
    """Add values from -1 to 1 to histograms of equal bins, one for each channel, in place; see `NormalizedHistogram`.

    Args:
        rows: float32 (N, C, elements).
        counts: int64 (C, bins).
        sums: of values, float64 (C, bins).
        squares: of values, float64 (C,).

    Returns:
        False where the loops cannot do it; nothing is counted then.
    """
    library = _library_for(rows)
    if library is None:
        return False
    rows = rows.contiguous()
    addresses = (tensor.data_ptr() for tensor in (counts, sums, squares))
    library.count_normalized(rows.data_ptr(), *rows.shape, counts.shape[1], *addresses)
    return True
