"""Where the weights lie in what a file holds: entries, prefixes of wrappers, and what is missing among them."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from basicsr.utils.errors import CheckpointError
from basicsr.utils.logger import get_logger

_USUAL_KEYS = (  # averaged weights before those of the last step
    *("params_ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "generator_ema", "ema"),
    *("params", "state_dict", "model_state_dict", "model", "net_g", "netG", "net", "network", "generator", "weights"),
)
_TRAINING_KEYS = ("optimizer", "optimizers", "optimizer_state_dict", "optimizer_states", "param_groups")
_OF_TORCH = re.compile(  # torch.compile, FSDP and Fabric, of the whole network or of a part of it
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_COUNTERS = ("n_averaged", "initted", "step")  # of torch.optim.swa_utils.AveragedModel, and of the package ema_pytorch
_OF_WRAPPERS = ("module.", "ema_model.", "generator.", "net_g.", "netG.", "network.", "net.", "model.")
_PARTNERS = ("discriminator.", "net_d.", "netD.", "online_model.")
_MOST_ENTRIES_SHOWN = 8
_MOST_FORGOTTEN = 8  # more are no accident but another depth


def weights_in(content: Any, path: str | Path, param_key: str | None = None) -> dict[str, Tensor]:
    """Return the weights in what a file holds, by name, without the prefixes of wrappers.

    Args:
        content: what was read.
        path: the file, for messages.
        param_key: entry that holds the weights, or what their names begin with; `a.b` is entry b of entry a. By default the first of the usual ones that holds
            tensors, `params_ema` before `params`, else the whole file, else the only entry that holds tensors.

    Raises:
        CheckpointError: there are none where they are looked for; says which entries there are.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"The file '{path}' holds no weights by name but an object of type {type(content).__name__}. Save the state dict of the "
            "network in its place."
        )
    chosen = _entry(content, path, param_key) if param_key is not None else _usual_entry(content, path)
    tensors = _tensors_by_name(chosen)
    if tensors is None:
        raise CheckpointError(_no_weights(content, path, param_key))
    return without_wrappers(tensors)


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the prefixes that DataParallel, torch.compile and frameworks put before all names.

    Of a file with a generator and a discriminator the generator is returned. `model.` stays before numbers, which are of an
    `nn.Sequential` of that name.
    """
    tensors = {_OF_TORCH.sub("", name): tensor for name, tensor in tensors.items()}
    if any(name.startswith(("module.", "ema_model.")) for name in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in _COUNTERS}
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    while prefix := _common_prefix(tensors):
        tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return tensors


def largest_part(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """Return the first part of the names of most tensors, with its dot, and these tensors without it; None where it is not of most.

    So a network lies in a wrapper of any name, `sr_model.` of a class of somebody's own, perhaps beside the network of a loss.
    """
    counts = Counter(name.partition(".")[0] for name in tensors if "." in name)
    part, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    prefix = f"{part}."
    if 2 * count <= len(tensors):
        return None
    return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def likely_missing(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return names that look forgotten: a weight whose bias is there, or a tensor that all other blocks of a row have.

    Args:
        tensors: by name.

    Returns:
        Their names in order; none where they are so many that the blocks of a row are meant to differ.
    """
    missing = {name.removesuffix("bias") + "weight" for name in tensors if name.endswith(".bias")} - set(tensors)
    rows: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in tensors:
        for number in re.finditer(r"(?<=\.)\d+(?=\.)", name):
            rows[name[: number.start()]][number[0]].add(name[number.end() :])
    for start, blocks in rows.items():
        everything = set().union(*blocks.values())
        for rest in everything:
            without = [number for number, names in blocks.items() if rest not in names]
            if len(without) == 1 and len(blocks) > 2:
                missing.add(f"{start}{without[0]}{rest}")
    return sorted(missing) if len(missing) <= _MOST_FORGOTTEN else []


def _common_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    for prefix in _OF_WRAPPERS:
        inside = [name for name in tensors if name.startswith(prefix)]
        if not inside or (prefix == "model." and any(name[len(prefix)].isdigit() for name in inside)):
            continue
        if all(name.startswith((prefix, *_PARTNERS)) for name in tensors):
            return prefix
    return None


def _entry(content: Mapping[Any, Any], path: str | Path, param_key: str) -> Any:
    found: Any = content
    for key in [param_key] if param_key in content else param_key.split("."):
        found = _part(found, key)
        if found is None:
            raise CheckpointError(
                f"The file '{path}' has no entry '{param_key}' (param_key). Its entries: {_entries(content)}."
            )
    return found


def _part(content: Any, key: str) -> Any:
    """Return an entry of a mapping, or those whose names begin with it and a dot; None where there are none."""
    if not isinstance(content, Mapping):
        return None
    if key in content:
        return content[key]
    prefix = f"{key}."
    return {
        name.removeprefix(prefix): value
        for name, value in content.items()
        if isinstance(name, str) and name.startswith(prefix)
    } or None


def _usual_entry(content: Mapping[Any, Any], path: str | Path) -> Any:
    """Return what holds the weights where nobody says: a usual entry, the content itself, or the only entry with tensors."""
    for key in _USUAL_KEYS:
        entry = content.get(key)
        if not isinstance(entry, Mapping):
            continue
        if _tensors_by_name(entry) is not None:
            return entry
        inner = next((entry[k] for k in _USUAL_KEYS if _tensors_by_name(entry.get(k)) is not None), None)
        if inner is not None:
            return inner
        get_logger().warning("The entry '%s' of '%s' holds no tensors and is passed over.", key, path)
    if _tensors_by_name(content) is not None:
        return content
    others = [key for key in content if _tensors_by_name(content[key]) is not None]
    inside = [entry for entry in content.values() if isinstance(entry, Mapping)]
    if not others and len(inside) == 1 and not any(key in content for key in _TRAINING_KEYS):
        return _usual_entry(inside[0], path)
    if len(others) != 1:
        return None
    get_logger().info("The weights of '%s' are taken from its entry '%s'.", path, others[0])
    return content[others[0]]


def _tensors_by_name(entry: Any) -> dict[str, Tensor] | None:
    """Return the tensors of a mapping of names to tensors, which may hold numbers and text beside them; None if it is none."""
    if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
        return None
    tensors = {key: value for key, value in entry.items() if isinstance(value, Tensor)}
    others = [value for value in entry.values() if not isinstance(value, Tensor)]
    plain = all(value is None or isinstance(value, str | int | float | np.generic) for value in others)
    return tensors if tensors and plain else None


def _no_weights(content: Mapping[Any, Any], path: str | Path, param_key: str | None) -> str:
    if param_key is None and any(key in content for key in _TRAINING_KEYS):
        return (
            f"The file '{path}' is the state of an optimiser or of a training run and holds no tensors of a network. The weights "
            "are in another file, in a folder such as models/ beside it."
        )
    if not content:
        return f"The file '{path}' holds nothing. Get it again from where it was made."
    where = f"in its entry '{param_key}'" if param_key else "where weights are looked for"
    return (
        f"The file '{path}' holds no tensors {where}. Its entries: {_entries(content)}; name the one with the weights as "
        "param_key, in upscale.py with --param_key."
    )


def _entries(content: Mapping[Any, Any]) -> str:
    rest = len(content) - _MOST_ENTRIES_SHOWN
    shown = ", ".join(f"'{key}'" for key in list(content)[:_MOST_ENTRIES_SHOWN])
    return (f"{shown} and {rest} more" if rest > 0 else shown) or "none"
