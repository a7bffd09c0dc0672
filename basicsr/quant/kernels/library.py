"""The compiled loops as a library of this process."""

import ctypes
import os
from functools import cache
from pathlib import Path

from basicsr.utils.compiling import load_compiled

SOURCE = Path(__file__).with_name("fake_quantize.c")
_LANGUAGE = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_CHOICES = (("-march=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())  # not every compiler has all

_WORDS = {"i": ctypes.c_int, "n": ctypes.c_int64, "f": ctypes.c_float, "p": ctypes.c_void_p}
_ARGUMENTS = {
    "fake_quantize": "ippnnppf",
    "fake_quantize_by_step": "ippnnpff",
    "gradients": "ipppnnppfifpp",
    "gradients_by_step": "ipppnnpffp",
}


@cache
def load_library() -> ctypes.CDLL:
    """Load the loops; the first time on a machine they are compiled, which takes a second.

    Raises:
        NotCompiledError: there is no C compiler, or what it makes cannot be loaded; says why.
    """
    compilers = (os.environ["CC"],) if os.environ.get("CC") else ("cc", "gcc", "clang")
    library = load_compiled(SOURCE, compilers, [(*_LANGUAGE, *choice) for choice in _CHOICES])
    for name, letters in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = [_WORDS[letter] for letter in letters]
        function.restype = ctypes.c_int if name.startswith("gradients") else None
    return library
