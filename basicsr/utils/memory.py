"""How the process holds the memory of tensors, and how much of it the machine has left."""

import ctypes
import sys
from pathlib import Path

from basicsr.utils.errors import DataError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int
_HARMLESS = 1 << 30  # bytes that are asked for without a look at what is left
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


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


def require_memory(needed: int, purpose: str, remedy: str) -> None:
    """Refuse work whose memory the machine has not got, before the system ends the process for it.

    Args:
        needed: bytes that are held at once for certain; up to 1 GiB nothing is looked at.
        purpose: what cannot be done, such as `to decode 'a.png'`.
        remedy: a full sentence.

    Raises:
        DataError: less is available.
    """
    available = available_memory() if needed > _HARMLESS else None
    if available is not None and needed > available:
        raise DataError(
            f"The memory does not suffice {purpose}: that takes {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available. "
            f"{remedy}"
        )


def available_memory() -> int | None:
    """Return the bytes that this process can still take, by the machine and by the limit of its container; None where nothing tells."""
    amounts = [amount for amount in (_left_of_machine(), _left_of_container()) if amount is not None]
    return min(amounts, default=None)


def _left_of_machine() -> int | None:
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_of_container() -> int | None:
    """Return what the limit of a control group leaves; pages of files, which the system gives up first, count as left."""
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        statistics = (_CGROUP / "memory.stat").read_text(encoding="ascii").split()
        return max(0, limit - used + int(statistics[statistics.index("inactive_file") + 1]))
    except (OSError, ValueError, IndexError):  # no such group, or one without a limit, whose file says `max`
        return None
