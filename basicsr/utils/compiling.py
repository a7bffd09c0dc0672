"""Libraries of the project's own kernels: compiled when they are first needed, and kept for later runs."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from basicsr.utils.errors import CheckpointError, UserError
from basicsr.utils.files import atomic_path
from basicsr.utils.hardware import processor_flags, processor_name

_CACHE = "basicsr-quant"
_SECONDS = 300


class NotCompiledError(UserError):
    """There is no compiler, it fails, or what it makes cannot be loaded; says why, in a full sentence."""


def load_compiled(
    main: Path, compilers: Sequence[str], flags: Sequence[Sequence[str]], headers: Sequence[Path] = ()
) -> ctypes.CDLL:
    """Return a library of C or C++, from the cache of the user if it is there; its name tells sources, flags and processor.

    Args:
        main: the source to compile.
        compilers: commands, of which the first that is there is taken.
        flags: choices of flags, the first of which that works is taken.
        headers: what the source includes.

    Raises:
        NotCompiledError: see there.
    """
    compiler = next((path for path in map(shutil.which, compilers) if path), None)
    if compiler is None:
        raise NotCompiledError(f"There is no compiler: {', '.join(compilers)} cannot be found in the search path.")
    reason = ""
    for choice in flags:
        try:
            return ctypes.CDLL(str(_compiled(compiler, main, choice, headers)))
        except (OSError, subprocess.SubprocessError, CheckpointError) as error:
            reason = _first_line(error)
    raise NotCompiledError(f"The compiler '{compiler}' makes no library that can be loaded: {reason}")


def _compiled(compiler: str, main: Path, flags: Sequence[str], headers: Sequence[Path]) -> Path:
    parts = [file.read_bytes() for file in (main, *sorted(headers))]
    digest = hashlib.sha256(b"\0".join([*parts, " ".join(flags).encode(), _processor()])).hexdigest()
    library = _cache() / f"{main.stem}_{digest[:16]}.so"
    if not library.is_file():
        library.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(library) as temporary:
            subprocess.run(
                [compiler, *flags, "-shared", "-fPIC", str(main), "-o", str(temporary), "-lm"],
                check=True, capture_output=True, text=True, timeout=_SECONDS,
            )  # fmt: skip
    return library


def _processor() -> bytes:
    """Return what tells processors apart for a compiler, since homes are shared between machines."""
    return "\n".join([platform.machine(), processor_name(), *sorted(processor_flags())]).encode()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _CACHE


def _first_line(error: Exception) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return (said or str(error)).strip().partition("\n")[0]
