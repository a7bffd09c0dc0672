"""Training states on disk: which of a folder can be continued from, and what tells two recipes apart."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from basicsr.utils.checkpoint import load_torch
from basicsr.utils.errors import CheckpointError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options, by_path, with_new_names
from basicsr.utils.recipe import recipe

NetworkOf = Callable[[Path], Path]
"""Returns the file of the network that belongs to the file of a state."""

WhyNot = Callable[[Mapping[str, Any], Mapping[str, Any], int, bool], str | None]
"""Why a training does not go on with another length, see `Model.why_not_continue`."""

_ENTRIES = {"iter", "recipe", "rng", "best", "seconds"}
_SHOWN = 3
_LONGEST_VALUE = 80
_LENGTH = ("train:total_iter", "train:scheduler")


def states_in(folder: Path) -> list[Path]:
    """Return the training states of a folder, that of the highest iteration first."""
    numbered = [(int(m[1]), file) for file in folder.glob("*.state") if (m := re.fullmatch(r"(\d+)\.state", file.name))]
    return [file for _, file in sorted(numbered, reverse=True)]


def read_state(file: Path, network: Path) -> dict[str, Any]:
    """Return a training state whose network is on disk and whole.

    Raises:
        CheckpointError: one of both is missing or damaged, or the file is no training state.
    """
    state = load_torch(file)
    if not isinstance(state, dict) or not _ENTRIES.issubset(state) or not isinstance(state["recipe"], dict):
        raise CheckpointError(
            f"'{file}' is no training state of this project. Those are in experiments/<name>/training_states/. What BasicSR "
            "saved goes on by its weights: name its net_g file as 'path:pretrain_network_g'."
        )
    if not network.is_file():
        raise CheckpointError(
            f"The network of the training state '{file}' is missing: '{network}'. Both are needed; put it back there."
        )
    load_torch(network)
    return state


def newest_usable(folder: Path, network_of: NetworkOf) -> tuple[Path | None, dict[str, Any], list[str]]:
    """Return the newest state of a folder that can be continued from.

    Args:
        folder: `training_states` of a run.
        network_of: see `NetworkOf`.

    Returns:
        Its file, None where the folder has no state; what it holds; and what is wrong with newer ones.

    Raises:
        CheckpointError: there are states, and none can be used.
    """
    problems: list[str] = []
    files = states_in(folder)
    for file in files:
        try:
            return file, read_state(file, network_of(file)), problems
        except CheckpointError as error:
            problems.append(str(error))
    if files:
        raise CheckpointError(
            f"None of the {len(files)} training states in '{folder}' can be used. {problems[0]} Without --auto_resume the run begins "
            "anew, and its folder is kept under another name."
        )
    return None, {}, []


def requested(file: Path, network_of: NetworkOf) -> dict[str, Any]:
    """Return the state that was asked for by its path.

    Raises:
        CheckpointError: it cannot be used; names the newest one beside it that can.
    """
    try:
        return read_state(file, network_of(file))
    except CheckpointError as error:
        usable = next(
            (other for other in states_in(file.parent) if other != file and _is_usable(other, network_of)), None
        )
        if usable is None:
            raise
        raise CheckpointError(
            f"{error} The state '{usable}' beside it is whole: continue from it with path:resume_state={usable}"
        ) from error


def _is_usable(file: Path, network_of: NetworkOf) -> bool:
    try:
        read_state(file, network_of(file))
    except CheckpointError:
        return False
    return True


def recipe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return what tells two recipes apart, as sentences without a full stop, and whether it is the length of the training alone.

    Args:
        before: recipe of a training state, possibly of an earlier version.
        now: recipe of the options.

    Returns:
        `'train:total_iter' was 100 and is now 200`, one for each option; and whether all of them are iterations and schedule.
    """
    training_data = {"datasets": {"train": before.get("datasets:train", {})}}
    renamed = with_new_names(training_data, before.get("scale"), tell=False)["datasets"]["train"]
    old, new = by_path({**before, "datasets:train": renamed}), by_path(now)
    keys = [key for key in sorted(old.keys() | new.keys()) if _differ(key, old, new)]
    others = tuple(key.removesuffix("type") for key in keys if key.endswith(":type"))  # whose options are others, too
    keys = [key for key in keys if key.endswith(":type") or not key.startswith(others)]
    sentences = [f"'{key}' was {_shown(old, key)} and is now {_shown(new, key)}" for key in keys]
    return sentences, bool(keys) and all(key.startswith(_LENGTH) for key in keys)


def require_same(
    state: Mapping[str, Any], options: Options, calibration_set: Mapping[str, Any] | None, file: Path, why_not: WhyNot
) -> None:
    """Check that a run that is continued computes what its first piece began, but for a length that it can have as well.

    Args:
        state: the training state, with `recipe`, and `calibration_set` where it is not one of an earlier version.
        options: the options of the run.
        calibration_set: what the calibration set of the run is known by, see `CalibrationCrops.identity`; None without one.
        file: of the state, for messages.
        why_not: see `WhyNot`.

    Raises:
        CheckpointError: the recipe or the calibration set is another one; names the options that differ, with both values.
    """
    asked, iteration = recipe(options), int(state["iter"])
    differences, only_length = recipe_differences(state["recipe"], asked)
    if differences:
        told = _first_of(differences)
        remedy: str | None = "Continue with the same options, or start a run of another name."
        if only_length:
            allowed = options.required_train().allow_new_length
            remedy = why_not(state["recipe"]["train"], asked["train"], iteration, allowed)
        if remedy is not None:
            raise CheckpointError(f"'{file}' was made with another recipe: {told}. {remedy}")
        get_logger().warning(
            "The training goes on with another length or schedule after iteration %d: %s.", iteration, told
        )
    calibrated = state.get("calibration_set")
    if calibrated and calibration_set and calibrated["sha256"] != calibration_set["sha256"]:
        first, now = (f"{of['source']} (SHA-256 {of['sha256'][:12]}...)" for of in (calibrated, calibration_set))
        raise CheckpointError(
            f"'{file}' was calibrated on another set: {first}, and now it is {now}. Put the former set back, or start a run of "
            "another name."
        )


def _first_of(sentences: list[str]) -> str:
    rest = f"; {len(sentences) - _SHOWN} more options differ" if len(sentences) > _SHOWN else ""
    return "; ".join(sentences[:_SHOWN]) + rest


def _differ(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if key in old and key in new:
        return bool(old[key] != new[key])
    # where one of both has a section there and the other has none, the options of the section are told
    return not any(other.startswith(f"{key}:") for other in (*old, *new))


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = repr(values[key]) if key in values else "not given"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
