"""What of the options decides the outcome of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.utils.errors import CheckpointError
from basicsr.utils.options import COMPONENTS, Options, first_of_chain, with_new_names
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY, Registry
from basicsr.utils.signature import not_recipe, schema_of

_RECIPE = ("model_type", "scale", "bit", "manual_seed", "network_g", "quantization", "calibration", "train")
_TRAINING_DATA = "datasets:train"


def recipe(options: Options) -> dict[str, Any]:
    """Return the options that decide what a run computes: those that a resumed run must share with the first piece.

    The recipe of a run that comes after another one holds that of the other under `after`.
    Options with the mark `NOT_RECIPE`, in the schema or in the constructors of network, data set, quantizers, calibrators and
    model, are left out.
    """
    chosen = options.model_dump(include=set(_RECIPE))
    for section in ("quantization", "calibration", "train"):
        if chosen[section] is not None:
            marked = not_recipe(type(getattr(options, section)))
            chosen[section] = {key: value for key, value in chosen[section].items() if key not in marked}
    for place, registry in COMPONENTS.items():
        if place[0] in _RECIPE:
            _leave_out_marked(chosen, place, registry)
    _leave_out_marked(chosen, ("train",), MODEL_REGISTRY, options.model_type)
    chosen[_TRAINING_DATA] = options.datasets.get("train")
    _leave_out_marked(chosen, (_TRAINING_DATA,), DATASET_REGISTRY)
    first = first_of_chain(options)
    if first is not None:
        chosen["after"] = recipe(first)
    return json.loads(json.dumps({**chosen, _TRAINING_DATA: chosen[_TRAINING_DATA] or {}}))


def _leave_out_marked(chosen: dict[str, Any], place: tuple[str, ...], registry: Registry, name: Any = None) -> None:
    """Leave the marked options of a component out, where there is one at that place; its name is its `type` if not given."""
    *sections, key = place
    for section in sections:
        chosen = chosen.get(section) or {}
    component = chosen.get(key)
    if component is not None:
        marked = not_recipe(schema_of(registry.get(name or component.get("type"))))
        chosen[key] = {option: value for option, value in component.items() if option not in marked}


def require_same(
    state: Mapping[str, Any], options: Options, calibration_set: Mapping[str, Any] | None, file: Path | None
) -> None:
    """Check that a run that is continued computes what its first piece began.

    Args:
        state: the training state, with `recipe`, and `calibration_set` where it is not one of an earlier version.
        options: the options of the run.
        calibration_set: what the calibration set of the run is known by, see `CalibrationCrops.identity`; None without one.
        file: of the state, for messages.

    Raises:
        CheckpointError: the recipe or the calibration set is another one.
    """
    before = _with_new_names(state["recipe"])
    for key, value in recipe(options).items():
        if before.get(key) != value:
            raise CheckpointError(
                f"'{file}' was made with another recipe: '{key}' was {before.get(key)!r} and is now {value!r}. "
                "Continue with the same options, or start a run of another name."
            )
    calibrated = state.get("calibration_set")
    if calibrated and calibration_set and calibrated["sha256"] != calibration_set["sha256"]:
        first, now = (f"{of['source']} (SHA-256 {of['sha256'][:12]}...)" for of in (calibrated, calibration_set))
        raise CheckpointError(
            f"'{file}' was calibrated on another set: {first}, and now it is {now}. Put the former set back, or start a run of "
            "another name."
        )


def _with_new_names(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a training state, which may be one of an earlier version."""
    data = {"datasets": {"train": before.get("datasets:train", {})}}
    return {**before, "datasets:train": with_new_names(data, before.get("scale"), tell=False)["datasets"]["train"]}
