"""The options of a run: their schema, files and overrides merged over each other, components checked against constructors.

Texts may contain `{scale}` and `{bit}`. May import the rest of utils.
"""

from basicsr.utils.options.checking import check_components, check_method, metric_arguments
from basicsr.utils.options.loading import load_options
from basicsr.utils.options.merging import apply_override, merge, read_with_bases
from basicsr.utils.options.schema import (
    DEFAULT_METRICS,
    CalibrationOptions,
    Component,
    FolderName,
    Options,
    OverrideOptions,
    PathOptions,
    Positive,
    QuantizationOptions,
    RuleOptions,
    TrainOptions,
    ValOptions,
)

__all__ = [
    "DEFAULT_METRICS",
    "CalibrationOptions",
    "Component",
    "FolderName",
    "Options",
    "OverrideOptions",
    "PathOptions",
    "Positive",
    "QuantizationOptions",
    "RuleOptions",
    "TrainOptions",
    "ValOptions",
    "apply_override",
    "check_components",
    "check_method",
    "load_options",
    "merge",
    "metric_arguments",
    "read_with_bases",
]
