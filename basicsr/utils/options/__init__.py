"""The options of a run: schema.py lists them (quantizing.py those of two sections), merging.py reads files and overrides, loading.py goes from there to checked values.

written.py reads a value by the type of its option, old_names.py knows earlier names, upstream/ those of BasicSR and 2DQuant. May import the rest of utils.
"""

from basicsr.utils.options.chaining import ARROW
from basicsr.utils.options.checking import check_components, check_method, metric_arguments
from basicsr.utils.options.loading import first_of_chain, load_network_options, load_options, translated_options
from basicsr.utils.options.merging import apply_override, by_path, merge, read_with_bases
from basicsr.utils.options.names import FolderName
from basicsr.utils.options.old_names import with_new_names
from basicsr.utils.options.quantizing import CalibrationOptions, OverrideOptions, QuantizationOptions, RuleOptions
from basicsr.utils.options.schema import DEFAULT_METRICS, Options, PathOptions, TrainOptions, ValOptions
from basicsr.utils.options.section import Component, Positive
from basicsr.utils.options.written import COMPONENTS

__all__ = [
    "ARROW",
    "COMPONENTS",
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
    "by_path",
    "check_components",
    "check_method",
    "first_of_chain",
    "load_network_options",
    "load_options",
    "merge",
    "metric_arguments",
    "read_with_bases",
    "translated_options",
    "with_new_names",
]
