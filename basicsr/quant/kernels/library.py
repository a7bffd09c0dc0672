"""The compiled loops as a library of this process."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("fake_quantize.c")
_LANGUAGE = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_CHOICES = (("-march=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())  # not every compiler has all
_SECONDS = 120

_WORDS = {"i": ctypes.c_int, "n": ctypes.c_int64, "f": ctypes.c_float, "p": ctypes.c_void_p}
_ARGUMENTS = {
    "fake_quantize": "ippnnppf",
    "fake_quantize_by_step": "ippnnpff",
    "gradients": "ipppnnppfifpp",
    "gradients_by_step": "ipppnnpffp",
}


@cache
def load_library() -> ctypes.CDLL:
    """Compile and load the loops, once in a process; it takes about a second.

    Raises:
        RuntimeError: there is no C compiler, or what it makes cannot be loaded; says why.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if compiler is None:
        raise RuntimeError(
            "No C compiler was found: none of cc, gcc and clang is in the search path, and CC names none."
        )
    reasons = []
    for choice in _CHOICES:
        try:
            return _declared(_compiled(compiler, choice))
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(_reason(error))
    raise RuntimeError(f"'{compiler}' makes no library that can be loaded: {reasons[-1]}")


def _compiled(compiler: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    """Return the library; its file is not needed any more once it is loaded."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=sys.platform == "win32") as folder:
        file = Path(folder, "loops.so")
        subprocess.run(
            [compiler, *_LANGUAGE, *flags, str(_SOURCE), "-o", str(file), "-lm"],
            check=True, capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
        return ctypes.CDLL(str(file))


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, letters in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = [_WORDS[letter] for letter in letters]
        function.restype = ctypes.c_int if name.startswith("gradients") else None
    return library


def _reason(error: Exception) -> str:
    """Return the first line of what a compiler complains of."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return (said or str(error)).strip().partition("\n")[0]
