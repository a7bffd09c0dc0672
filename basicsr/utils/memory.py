"""How the process holds the memory of tensors."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensors, instead of giving it back to the system.

    By default glibc maps large blocks anew and gives the end of the heap back, so that each layer touches its pages for the
    first time, which can cost more than an elementwise operation on them. The process keeps what it took at its peak, until
    `release_freed_memory` is called.

    Returns:
        Whether that was done; False where the C library is another one.
    """
    library = _glibc()
    if library is None:
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_TRIM_THRESHOLD, _LARGEST))


def release_freed_memory() -> bool:
    """Give the freed pages of the heap back to the system, also those between blocks that are in use.

    For the end of a piece of work whose tensors have other sizes than those of the next piece. PyTorch asks for blocks aligned to
    64 bytes, and glibc before 2.38 does not find its freed blocks again for these once small objects lie around them (its bug
    14581). The heap then grows with each piece, though little of it is in use.

    Returns:
        Whether pages were given back; False also where the C library is another one.
    """
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))
