"""What each layer's quantization alone does to the output of a network: which layers deserve more bits."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.modules.base import QModule
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.replay import KeptPass
from basicsr.quant.quantizers.base import Quantizer
from basicsr.utils.logger import get_logger


@dataclass(frozen=True)
class LayerSensitivity:
    """The error of a network's output when one of its layers alone is quantized.

    Attributes:
        name: of the layer.
        bits: of its quantizers, by their path inside the layer.
        mean_squared_error: of the output, whose values are 0 to 1.
        fidelity: the same in dB, as the fidelity of results is; None where there is no error.
    """

    name: str
    bits: dict[str, int]
    mean_squared_error: float
    fidelity: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)


@torch.no_grad()
def measure_sensitivity(network: nn.Module, crops: Tensor) -> list[LayerSensitivity]:
    """Quantize one layer at a time, all others in full precision, and compare outputs; for each layer the network is computed from it on.

    The errors of layers nearly add up while they are small: a layer that is near the top of the list is where more bits gain most.

    Args:
        network: a network whose quantizers are calibrated; left as it was.
        crops: LR crops (N, 3, h, w) in 0..1.

    Returns:
        The layers, that with the largest error first.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QModule)}
    errors, bits = dict.fromkeys(layers, 0.0), {}
    with bypass_quantizers(network):
        for crop in crops.to(next(network.parameters()).device).split(1):
            kept = KeptPass(network, crop)
            for name, layer in layers.items():
                with _quantized(layer) as bits[name]:
                    difference = (kept.changed_at([layer]) - kept.output).double()
                errors[name] += float(difference.square().mean()) / len(crops)
    rows = [
        LayerSensitivity(name, bits[name], error, -10 * math.log10(error) if error else None)
        for name, error in errors.items()
    ]
    return sorted(rows, key=lambda row: -row.mean_squared_error)


def describe_sensitivity(rows: list[LayerSensitivity], number: int = 5) -> str:
    """Return a sentence that names the layers whose quantization costs most, with their share of the sum of all errors."""
    total = sum(row.mean_squared_error for row in rows)
    if not total:
        return "No layer's quantization changes the output."
    shares = ", ".join(f"'{row.name}' {row.mean_squared_error / total:.0%}" for row in rows[:number])
    return (
        f"Of the output's error that {len(rows)} layers make when each alone is quantized, most comes from {shares}. "
        "More bits for a layer: quantization:overrides."
    )


def report_sensitivity(network: nn.Module, crops: Tensor) -> list[dict[str, Any]]:
    """Measure as `measure_sensitivity` does, tell the log in a sentence, and return plain values for a JSON file."""
    rows = measure_sensitivity(network, crops)
    get_logger().info("%s", describe_sensitivity(rows))
    return [row.as_dict() for row in rows]


@contextmanager
def _quantized(layer: nn.Module) -> Iterator[dict[str, int]]:
    """Let one layer of a network whose quantizers are bypassed quantize; yields the bits of its quantizers."""
    quantizers: list[tuple[str, Quantizer]] = list(named_quantizers(layer))
    for _, quantizer in quantizers:
        quantizer.bypass = False
    try:
        yield {path: quantizer.spec.bits for path, quantizer in quantizers}
    finally:
        for _, quantizer in quantizers:
            quantizer.bypass = True
