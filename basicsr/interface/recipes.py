"""The shipped methods: the same YAML files that options files build on, found in a checkout or in an installed package."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.options import Options, check_method, merge, read_with_bases
from basicsr.utils.signature import validate_model
from basicsr.utils.yaml_loader import read_yaml

_PACKAGE = Path(__file__).resolve().parents[1]
_SECTIONS = ("model_type", "method", "manual_seed", "quantization", "calibration", "train")
_MEANT_FOR_FILES = ("data", "dataroot_gt", "dataroot_lq")  # of the section `calibration`: here crops are given


def recipe_folder() -> Path:
    """Return the folder of recipes: `options/methods`, beside the package in a checkout, inside it once it is installed."""
    return next(
        folder for folder in (_PACKAGE / "options/methods", _PACKAGE.parent / "options/methods") if folder.is_dir()
    )


@cache
def recipe_files() -> dict[str, Path]:
    """Return the file of each method that quantizes, by the label that results carry, or else by the name of the file."""
    found: dict[str, Path] = {}
    for file in sorted(recipe_folder().glob("*.yml"), key=lambda file: (len(file.stem), file.stem)):
        content = read_with_bases(file)
        if "method" not in content or "network_g" in content:
            continue
        label = read_yaml(file).get("method")
        found[file.stem if label is None or label in found else label] = file
    return found


def methods() -> list[str]:
    """Return the names that `quantize` and `distill` take as `method`."""
    return sorted(recipe_files(), key=str.lower)


def read_recipe(method: str) -> dict[str, Any]:
    """Return the sections of a method's recipe that do not speak of data or networks.

    Args:
        method: one of `methods()`, in any case of letters, or the name of its file without `.yml`.

    Raises:
        OptionsError: there is no such method; names the nearest one.
    """
    known = {str(name).lower(): file for name, file in recipe_files().items()}
    known |= {file.stem.lower(): file for file in recipe_files().values()}
    file = known.get(str(method).lower())
    if file is None:
        raise OptionsError(f"There is no method '{method}'. {suggestion(str(method), methods())}")
    content = read_with_bases(file)
    recipe = {key: content[key] for key in _SECTIONS if key in content}
    for key in _MEANT_FOR_FILES:
        recipe.get("calibration", {}).pop(key, None)
    return recipe


def check_changes(options: Any) -> None:
    """Raise an OptionsError for changes of a recipe that are no mapping of sections."""
    if options is not None and not isinstance(options, Mapping):
        raise OptionsError(
            f"`options` is {options!r}, but must be a mapping of sections such as "
            '{"quantization": {"weight_granularity": "per_channel"}}.'
        )


def resolve_options(recipe: Mapping[str, Any], network_type: str, changes: Mapping[str, Any]) -> Options:
    """Return checked options as a run of a command has them, with all defaults filled in.

    Args:
        recipe: sections of a recipe, see `read_recipe`.
        network_type: name of the network's class, for messages.
        changes: sections laid over the recipe, as an options file that builds on it would do.

    Raises:
        OptionsError: with the path of the key, the value and the nearest known name.
    """
    # the scale is that of the network itself, which need not be one of those that commands have data for
    given = {"name": "interface", "scale": 4, "datasets": {}, "network_g": {"type": network_type}}
    options = validate_model(Options, merge({**recipe, **given}, dict(changes)), "")
    check_method(options)
    return options


def trains(options: Options) -> bool:
    """Return whether a method goes on after calibration."""
    return options.train is not None and options.train.total_iter > 0
