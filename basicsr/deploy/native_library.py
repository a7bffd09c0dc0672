"""The kernels of graphs in C++: compiled when they are first needed, and done without where that does not work."""

import ctypes
import functools
import os
from pathlib import Path

from basicsr.utils.compiling import NotCompiledError, load_compiled
from basicsr.utils.logger import get_logger

SOURCES = Path(__file__).with_name("native")
_FLAGS = (
    "-O3", "-std=c++17", "-pthread",
    "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma",
)  # fmt: skip


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """Return the library of kernels; None where there is no compiler for it, or the processor lacks AVX-512 or VNNI."""
    compilers = (os.environ["CXX"],) if os.environ.get("CXX") else ("c++", "g++", "clang++")
    try:
        library = load_compiled(SOURCES / "swin_layer.cpp", compilers, [_FLAGS], list(SOURCES.glob("*.h")))
    except NotCompiledError as error:
        get_logger().info("The project's own kernels are not used, since they cannot be compiled here. %s", error)
        return None
    if not library.basicsr_supported():
        get_logger().info("The project's own kernels are not used: this processor has no AVX-512 with VNNI.")
        return None
    library.basicsr_swin_layer.restype = None
    return library
