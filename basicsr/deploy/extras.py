"""Packages that only deployment needs."""

from types import ModuleType

from basicsr.utils import extras


def require(package: str) -> ModuleType:
    """Return an optional package; see `extras.require`."""
    return extras.require(package, "ONNX files and their runtimes", "deploy")
