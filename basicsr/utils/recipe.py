"""What of the options decides the outcome of a run."""

import json
from typing import Any

from basicsr.utils.options import Options

_RECIPE = ("model_type", "scale", "bit", "manual_seed", "network_g", "quantization", "calibration", "train")
_NOT_RECIPE = {
    "calibration": ("batch_size",),
    "train": (
        "num_workers",
        "cache_budget_mb",
        "cache_folder",
        "data_in_memory",
        "data_memory_mb",
        "piece_minutes",
        "check_losses",
        "compile",
        "cuda_graphs",
    ),
}
_NOT_RECIPE_OF_DATA = ("name", "dataroot_gt", "dataroot_lq", "filename_tmpl", "cache_budget_mb")


def recipe(options: Options) -> dict[str, Any]:
    """Return the options that decide what a run computes: those that a resumed run must share with the first piece.

    Folders are left out, for data may have moved.
    """
    chosen = options.model_dump(include=set(_RECIPE))
    training = options.datasets.get("train", {})
    chosen["datasets:train"] = {key: value for key, value in training.items() if key not in _NOT_RECIPE_OF_DATA}
    for section, keys in _NOT_RECIPE.items():
        for key in keys:
            (chosen.get(section) or {}).pop(key, None)
    return json.loads(json.dumps(chosen))
