"""How the process holds the memory of tensors."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensors, instead of giving it back to the system.

    By default glibc maps large blocks anew and gives the end of the heap back, so that each layer touches its pages for the
    first time, which can cost more than an elementwise operation on them. The process keeps what it took at its peak.

    Returns:
        Whether that was done; False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_TRIM_THRESHOLD, _LARGEST))
