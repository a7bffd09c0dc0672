"""How devices are named in options and arguments; `devices.py` chooses the one of a name."""

import re

KNOWN_DEVICES = "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def is_device_name(name: str) -> bool:
    """Whether a name is written as one of a device, present or not: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    return _DEVICE.fullmatch(name) is not None
