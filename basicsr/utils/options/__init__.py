"""The options of a run: their schema, files and overrides merged over each other, components checked against constructors.

schema.py is the list of all options; merging.py lays files and overrides over each other and fills placeholders; written.py reads
values by the type of their option; old_names.py knows what was called otherwise; checking.py holds components against their
constructors; loading.py does all of it in order. May import the rest of utils.
"""

from basicsr.utils.options.checking import check_components, check_method, metric_arguments
from basicsr.utils.options.loading import load_options
from basicsr.utils.options.merging import apply_override, merge, read_with_bases
from basicsr.utils.options.old_names import with_new_names
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
    "with_new_names",
]
