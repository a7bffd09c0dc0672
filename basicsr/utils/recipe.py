"""What of the options decides the outcome of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from basicsr.utils.errors import OptionsError
from basicsr.utils.options import COMPONENTS, Options, check_components, first_of_chain, with_new_names
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY, Registry
from basicsr.utils.signature import not_recipe, validate_model

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


def options_of(resolved: Mapping[str, Any]) -> Options:
    """Return options from what `model_dump` gave, also in an earlier version; those that are new since then get their defaults.

    Raises:
        OptionsError: an option is not known any more.
    """
    known = {key: value for key, value in resolved.items() if key != "provenance"}
    options = validate_model(Options, with_new_names(known, resolved.get("scale"), tell=False), "")
    check_components(options)
    return options


def was_begun_with(folder: Path, options: Options) -> bool:
    """Whether the run in a folder was begun with the recipe of these options, by the options.yml that it left; False without one."""
    try:
        resolved = yaml.safe_load((folder / "options.yml").read_text(encoding="utf-8"))
        return recipe(options_of(resolved)) == recipe(options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, OptionsError):  # or a damaged one
        return False


def _leave_out_marked(chosen: dict[str, Any], place: tuple[str, ...], registry: Registry, name: Any = None) -> None:
    """Leave the marked options of a component out, where there is one at that place; its name is its `type` if not given."""
    *sections, key = place
    for section in sections:
        chosen = chosen.get(section) or {}
    component = chosen.get(key)
    if component is not None:
        marked = not_recipe(registry.schema(name or component.get("type")))
        chosen[key] = {option: value for option, value in component.items() if option not in marked}
