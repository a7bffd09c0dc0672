"""What a graph is worth: agreement with PyTorch, kernels that compute in integers, and time."""

import statistics
import time
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from basicsr.deploy.runtime_names import Precision, RuntimeName
from basicsr.deploy.runtimes import RuntimeNetwork, has_bfloat16
from basicsr.evaluation.inference import upscale
from basicsr.utils.extras import usable

SIDE = 128  # LR pixels of the picture that is timed
_ROUNDS = 7


def installed_runtimes() -> list[RuntimeName]:
    """Return the runtimes whose packages are installed; a warning tells of the others."""
    return [name for name in get_args(RuntimeName) if usable([name])]


def native_precisions(runtime: RuntimeName) -> dict[str, Precision]:
    """Return what a runtime can compute in on this processor where it does not multiply integers, by the name in reports."""
    precisions: dict[str, Precision] = {"FP32": "f32"}
    if runtime == "openvino" and has_bfloat16():
        precisions["BF16"] = "bf16"
    return precisions


def label_of(runtime: RuntimeName, precision: Precision) -> str:
    """Return what reports call a quantized graph in a runtime, with the precision of what is not quantized: `openvino BF16`."""
    return runtime if precision == "f32" else f"{runtime} {precision.upper()}"


def timed_picture() -> Tensor:
    """Return the picture (1, 3, SIDE, SIDE) that latencies are measured on."""
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def latencies(networks: Mapping[str, nn.Module], picture: Tensor, rounds: int = _ROUNDS) -> dict[str, float]:
    """Time networks in turns, so that whatever else the machine does falls on all alike.

    Args:
        networks: by name.
        picture: (1, 3, h, w), multiples of their `size_multiple`, on their device.
        rounds: how often each runs, after one run that warms up.

    Returns:
        Median milliseconds by name.
    """
    return {name: statistics.median(times) for name, times in times_in_turns(networks, picture, rounds).items()}


def times_in_turns(networks: Mapping[str, nn.Module], picture: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each round by name, as `latencies` takes them."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds + 1):
        for name, network in networks.items():
            started = time.perf_counter()
            network(picture)
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: values[1:] for name, values in times.items()}


def largest_difference(first: nn.Module, second: nn.Module, lr: Tensor) -> float:
    """Return the largest difference between what two networks make of a picture (3, h, w), in units of its range 0..1."""
    outputs = [upscale(network, lr[None], pad="mirror") for network in (first, second)]
    return float((outputs[0] - outputs[1]).abs().max())


def integer_products(runtime: RuntimeNetwork, picture: Tensor) -> dict[str, Any]:
    """Return how many nodes multiply integers, and all kernels with their number and milliseconds in one run."""
    kernels = runtime.profile(picture)
    return {
        "integer_nodes": sum(kernel.count for kernel in kernels if kernel.integer),
        "kernels": {k.name: {"count": k.count, "milliseconds": round(k.milliseconds, 2)} for k in kernels},
    }
