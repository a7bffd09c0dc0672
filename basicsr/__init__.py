"""Low-bit quantization of image super-resolution networks, in the manner of BasicSR.

For notebooks: `basicsr.quantize`, `distill`, `evaluate`, `export`, `load` and `draw_crops`, see `basicsr.interface`. What they need is
imported when one of them is used.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from basicsr.interface import (
        QuantizedNetwork,
        distill,
        draw_crops,
        evaluate,
        export,
        load,
        methods,
        quantize,
    )

__version__ = "0.1.0"
__all__ = [
    "QuantizedNetwork",
    "distill",
    "draw_crops",
    "evaluate",
    "export",
    "load",
    "methods",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("basicsr.interface"), name)
    raise AttributeError(f"module 'basicsr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(types.ModuleType):
    """Keeps `basicsr.export` the function, also when the command `basicsr/export.py` has been imported as a module."""

    @property
    def export(self) -> Any:
        return __getattr__("export")

    @export.setter
    def export(self, _command: types.ModuleType) -> None:
        """Python sets this when it imports the command."""


sys.modules[__name__].__class__ = _Package
