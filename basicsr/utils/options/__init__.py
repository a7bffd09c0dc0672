"""The options of a run: a YAML file, the files it builds on (`base:`), and overrides from the command line.

schema.py is the list of all options; merging.py lays files and overrides over each other; checking.py holds components
against their constructors; loading.py does all of it in order. Texts may contain `{scale}` and `{bit}`.
"""

from basicsr.utils.options.checking import check_components, check_method
from basicsr.utils.options.loading import load_options
from basicsr.utils.options.merging import apply_override, merge, read_with_bases
from basicsr.utils.options.schema import (
    CalibrationOptions,
    Component,
    FolderName,
    Options,
    OverrideOptions,
    PathOptions,
    Positive,
    QuantizationOptions,
    TrainOptions,
    ValOptions,
)

__all__ = [
    "CalibrationOptions",
    "Component",
    "FolderName",
    "Options",
    "OverrideOptions",
    "PathOptions",
    "Positive",
    "QuantizationOptions",
    "TrainOptions",
    "ValOptions",
    "apply_override",
    "check_components",
    "check_method",
    "load_options",
    "merge",
    "read_with_bases",
]
