"""The compiled loops as libraries of this process."""

import ctypes
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from basicsr.utils.compiling import load_compiled

FOLDER = Path(__file__).parent
_LANGUAGE = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_CHOICES = (("-march=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())  # not every compiler has all

_WORDS = {
    "i": ctypes.c_int, "n": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double, "p": ctypes.c_void_p,
}  # fmt: skip
_QUANTIZERS = {
    "fake_quantize": "ippnnppf",
    "fake_quantize_by_step": "ippnnpff",
    "gradients": "ipppnnppfifpp",
    "gradients_by_step": "ipppnnpffp",
}
_HISTOGRAMS = {"count_aligned": "pndinppp", "count_normalized": "pnnnippp"}
_FAIL = ("gradients", "gradients_by_step", "count_aligned")
"""Functions that return whether they failed."""


@cache
def load_library() -> ctypes.CDLL:
    """Load the loops of quantizers; the first time on a machine they are compiled, which takes a second.

    Raises:
        NotCompiledError: there is no C compiler, or what it makes cannot be loaded; says why.
    """
    return _loaded("fake_quantize.c", _QUANTIZERS)


@cache
def load_histograms() -> ctypes.CDLL:
    """Load the loops of histograms, as `load_library` does those of quantizers.

    Raises:
        NotCompiledError: see there.
    """
    return _loaded("histogram.c", _HISTOGRAMS)


def _loaded(source: str, arguments: Mapping[str, str]) -> ctypes.CDLL:
    compilers = (os.environ["CC"],) if os.environ.get("CC") else ("cc", "gcc", "clang")
    library = load_compiled(FOLDER / source, compilers, [(*_LANGUAGE, *choice) for choice in _CHOICES])
    for name, letters in arguments.items():
        function = getattr(library, name)
        function.argtypes = [_WORDS[letter] for letter in letters]
        function.restype = ctypes.c_int if name in _FAIL else None
    return library
