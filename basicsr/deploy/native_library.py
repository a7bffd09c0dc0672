"""The project's own kernels in C++: compiled when they are first needed, and done without where that does not work."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from basicsr.utils.errors import CheckpointError
from basicsr.utils.files import atomic_path
from basicsr.utils.logger import get_logger

SOURCES = Path(__file__).with_name("native")
_MAIN = SOURCES / "swin_layer.cpp"
_FLAGS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-pthread",
    "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma",
)  # fmt: skip
_CACHE = "basicsr-quant"
_SECONDS_TO_COMPILE = 300


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """Return the library of kernels; None where there is no compiler for it, or the processor lacks AVX-512 or VNNI."""
    try:
        library = ctypes.CDLL(str(_compiled()))
        supported = bool(library.basicsr_supported())
    except (OSError, subprocess.SubprocessError, CheckpointError) as error:
        get_logger().info("The project's own kernels are not used, since they cannot be compiled here: %s", error)
        return None
    if not supported:
        get_logger().info("The project's own kernels are not used: this processor has no AVX-512 with VNNI.")
        return None
    library.basicsr_swin_layer.restype = None
    return library


def _compiled() -> Path:
    """Return the compiled library, from the cache of the user if it is there; its name tells sources, flags and processor."""
    parts = [file.read_bytes() for file in sorted(SOURCES.iterdir()) if file.suffix in (".h", ".cpp")]
    digest = hashlib.sha256(b"\0".join([*parts, " ".join(_FLAGS).encode(), platform.machine().encode()])).hexdigest()
    library = _cache() / f"kernels_{digest[:16]}.so"
    if not library.is_file():
        compiler = shutil.which(os.environ.get("CXX", "c++"))
        if compiler is None:
            raise FileNotFoundError("there is no C++ compiler.")
        library.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(library) as temporary:
            _compile(compiler, temporary)
    return library


def _compile(compiler: str, output: Path) -> None:
    command = [compiler, *_FLAGS, str(_MAIN), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_COMPILE, check=False)
    if done.returncode:
        first = (done.stderr.strip().splitlines() or ["it says nothing."])[0]
        raise subprocess.SubprocessError(f"'{compiler}' fails: {first}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _CACHE
