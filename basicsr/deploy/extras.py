"""Packages that only deployment needs."""

import importlib
from types import ModuleType

from basicsr.utils.errors import OptionsError


def require(package: str) -> ModuleType:
    """Return an optional package.

    Raises:
        OptionsError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise OptionsError(
            f"The package '{package}' is needed for ONNX files and their runtimes and is not installed. "
            "Install it with: pip install -e '.[deploy]'"
        ) from error
