"""A run that comes after another one: what both share, and the options of the first."""

import json
from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.merging import AXES, by_path
from basicsr.utils.options.schema import Options

ARROW = " > "
"""Between the methods of a chain in its label."""
_SHARED = (
    "network", "scale", "bit", "manual_seed", "device", "debug", "num_threads", "plugins", "network_g", "datasets",
    "val", "logger", "path", "quantization:coverage", "quantization:w_bits", "quantization:a_bits", "quantization:average_bits",
    "quantization:overrides", "quantization:exclude", "calibration:data", "calibration:dataroot_gt",
    "calibration:dataroot_lq", "calibration:num_images", "calibration:crop_size", "calibration:batch_size",
)  # fmt: skip
"""Options that an override sets for all runs of a chain: all but the methods with their quantizers, and the length of a training."""
_OF_ONE_RUN = ("path:pretrain_network_Q", "path:resume_state")


def file_of_first(after: Any) -> Path | None:
    """Return the options file of the run that comes first; None where the section holds its options, as in options.yml of a run.

    Raises:
        OptionsError: the section does neither.
    """
    if isinstance(after, dict) and "options" not in after and "network_g" in after:
        return None
    file = after.get("options") if isinstance(after, dict) else None
    if not isinstance(file, str):
        raise OptionsError(
            "Section 'after' names no options file: give 'after:options', the file of the run that comes first."
        )
    return Path(file)


def overrides_of_first(options: Options, after: dict[str, Any], overrides: list[str]) -> list[str]:
    """Return the overrides for the run that comes first.

    Args:
        options: the options of the run that comes after it.
        after: its section `after`.
        overrides: those of the command line, of which the first run gets what all runs of a chain share.
    """
    axes = {axis: getattr(options, axis) for axis in AXES if axis != "recipe" and getattr(options, axis) is not None}
    own = by_path({key: value for key, value in after.items() if key not in ("options", "name")})
    return [
        *(f"{axis}={value}" for axis, value in axes.items()),
        *(text for text in overrides if _is_shared(text.partition("=")[0].strip())),
        *(f"{key}={json.dumps(value)}" for key, value in own.items()),
        f"name={options.name}_start",
    ]


def _is_shared(key: str) -> bool:
    return key not in _OF_ONE_RUN and any(key == shared or key.startswith(f"{shared}:") for shared in _SHARED)


def label_of_chain(first: Options, options: Options) -> str:
    """Return the label of a run that comes after another one, such as `2DQuant > ODM`; one that names both stays as it is."""
    return options.method_name if ARROW in options.method_name else f"{first.method_name}{ARROW}{options.method_name}"
