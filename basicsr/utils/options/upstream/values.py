"""From values of BasicSR and 2DQuant to those of this project, where not the name alone is another one."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from basicsr.utils.options.upstream.rows import LEAVE_OUT, Convert, Given
from basicsr.utils.yaml_loader import guessed


def number_of_gpus(given: Given) -> int:
    """Return `num_gpu`, 1 for the CPU; of `auto` the number of processes of torchrun, else of visible GPUs."""
    number = given.get("num_gpu", 1)
    if number == "auto":
        import torch  # takes seconds, and few files need it

        return max(1, int(os.environ.get("WORLD_SIZE", 0)) or torch.cuda.device_count())
    return max(1, number) if type(number) is int else 1


def of_all_gpus(value: Any, given: Given) -> Any:
    """Return the batch size of a step from the one of a GPU."""
    size = guessed(value)
    return size * number_of_gpus(given) if type(size) in (int, float) else value


def device(value: Any, _given: Given) -> Any:
    """Return the device that `num_gpu` asks for; nothing where it is the default."""
    return "cpu" if guessed(value) == 0 else LEAVE_OUT


def warmup(value: Any, _given: Given) -> Any:
    """Return the length of a warm-up whose iterations have the rates of BasicSR's: k / n in iteration k of fewer than n."""
    number = guessed(value)
    return max(0, number - 1) if type(number) in (int, float) else value


def home(value: Any, _given: Given) -> Any:
    """Return a path with `~` at its beginning filled in."""
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value


def released_loss(name: str, of: str) -> Convert:
    """Return the conversion of a loss of 2DQuant, which its code divides once more; `of` is the only type it has in the files."""

    def convert(value: Any, _given: Given) -> Any:
        if not isinstance(value, dict) or value.get("type", of) != of:
            return value
        others = {key: item for key, item in value.items() if (key, item) != ("reduction", "mean")}
        return {**others, "type": name} if "type" in value else others

    return convert


def if_installed(package: str) -> Convert:
    """Return the conversion that leaves an option out where the package that it needs is not installed."""
    return lambda value, _given: LEAVE_OUT if find_spec(package) is None else value


def swin_layers(given: Given, translated: Mapping[str, Any]) -> list[str]:
    """Return the modules whose outputs 2DQuant compares: of each layer, or of each block with `hook_per_block`."""
    depths = translated.get("network_g", {}).get("depths", (6, 6, 6, 6))
    groups = [f"layers.{number}.residual_group" for number in range(len(depths))]
    hooks = given.get("quant") or {}
    if hooks.get("hook_per_layer", True) or not hooks.get("hook_per_block"):
        return groups
    return [f"{group}.blocks.{block}" for group, depth in zip(groups, depths, strict=True) for block in range(depth)]


def first_metric(_given: Given, translated: Mapping[str, Any]) -> Any:
    """Return the metric that chooses the best iterate where none is called psnr: the first PSNR, else the first."""
    metrics = {name: options for name, options in translated["val"]["metrics"].items() if isinstance(options, dict)}
    psnr = [name for name, options in metrics.items() if options.get("type") == "calculate_psnr"]
    return LEAVE_OUT if "psnr" in metrics or not metrics else (*psnr, *metrics)[0]
