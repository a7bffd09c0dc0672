"""Packages that only some runs need."""

import importlib
from types import ModuleType

from basicsr.utils.errors import OptionsError


def require(package: str, purpose: str, extra: str) -> ModuleType:
    """Return an optional package.

    Args:
        package: name by which it is imported.
        purpose: what needs it, for the message: `ONNX files`.
        extra: the group of packages in pyproject.toml that brings it.

    Raises:
        OptionsError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise OptionsError(
            f"The package '{package}' is needed for {purpose} and is not installed. "
            f"Install it with: pip install -e '.[{extra}]'"
        ) from error
