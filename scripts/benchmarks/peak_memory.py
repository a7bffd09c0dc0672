"""The largest memory that this process has held, without what its parent held.

Linux hands the `ru_maxrss` of `getrusage` on from a process to the programs that it starts: a small program of a large parent
would report the parent. The line `VmHWM` of /proc is of the program alone.
"""

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_THE_PEAK = "5"  # what the kernel takes for: forget the peak
_UNIT = 1 if sys.platform == "darwin" else 2**10  # bytes, of ru_maxrss


def peak_memory() -> int:
    """Return the largest resident memory in bytes, since the start of the program or since `forget_peak`."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def forget_peak() -> None:
    """Let the peak begin anew with what is held now. Nothing happens where the system is not Linux."""
    if _CLEAR.exists():
        _CLEAR.write_text(_THE_PEAK)
