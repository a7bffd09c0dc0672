"""The factors of each layer's input channels, by what they do to the output of the layer."""

from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.insertion.insert import named_quantizers, quantizers_with_same_input
from basicsr.quant.modules.base import QModule
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.module_calls import first_inputs
from basicsr.training.calibration.observing import build_calibrator
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import CalibrationOptions

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the channels' ranges: 0 leaves the input as it is, 1 gives all channels the same range."""
_SMALLEST_SHARE = 1e-3  # of the largest range: channels that are nearly always 0 are not blown up beyond it


def scale_inputs(network: nn.Module, crops: Tensor, options: CalibrationOptions) -> dict[str, float]:
    """Choose the factors of all layers that have such, and scale their weights accordingly.

    The factors are the largest magnitudes of the channels to one of the powers `EXPONENTS`, with a geometric mean of 1. The power is that
    with the smallest squared error of the layer's output, its input in full precision and both of its quantizers calibrated for it.
    Power 0 is among them, so that no layer becomes worse by this measure.

    Args:
        network: a network with quantizers; their calibration begins anew afterwards.
        crops: LR crops (N, 3, h, w) in 0..1, of which the first `options.batch_size` are used.
        options: how bounds are found.

    Returns:
        The chosen powers, by the name of the layer.
    """
    layers = {n: m for n, m in network.named_modules() if isinstance(m, QModule) and m.input_scale is not None}
    if not layers:
        return {}
    chosen: dict[str, float] = {}
    with torch.no_grad():
        for layer in layers.values():
            layer.set_input_scale(torch.ones_like(_scale_of(layer)))
        with bypass_quantizers(network):
            inputs = first_inputs(network, layers, crops[: options.batch_size].to(next(network.parameters()).device))
        for name, x in inputs.items():
            chosen[name] = _choose(layers[name], x, options)
    release_freed_memory()
    changed = sum(power > 0 for power in chosen.values())
    get_logger().info(
        "The inputs of %d of %d layers are scaled by channel; their weights take it back.", changed, len(layers)
    )
    return chosen


def _choose(layer: QModule, x: Tensor, options: CalibrationOptions) -> float:
    """Set the best factors for an input of a layer in full precision; return their power."""
    scale = _scale_of(layer)
    assert layer.input_scale is not None
    magnitudes = x.abs().movedim(layer.input_scale.axis, 0).flatten(1).amax(1)  # C
    magnitudes = magnitudes.clamp_min(float(magnitudes.max()) * _SMALLEST_SHARE)
    if not bool(magnitudes.isfinite().all()) or not bool((magnitudes > 0).any()):
        return 0.0  # what cannot be calibrated is told by the calibration
    with bypass_quantizers(layer):
        target = layer(x)
    errors = {}
    for power in EXPONENTS:
        layer.set_input_scale(_factors(magnitudes, power).to(scale))
        _calibrate(layer, x, options)
        errors[power] = float((layer(x) - target).square().mean())
    best = min(EXPONENTS, key=lambda power: errors[power])
    layer.set_input_scale(_factors(magnitudes, best).to(scale))
    return best


def _factors(magnitudes: Tensor, power: float) -> Tensor:
    """Return the magnitudes to a power, over their geometric mean."""
    logs = power * magnitudes.log()
    return (logs - logs.mean()).exp()


def _calibrate(layer: QModule, x: Tensor, options: CalibrationOptions) -> None:
    """Calibrate the quantizers of one layer for one input."""
    weights, scaled = layer.weights(), layer.scaled(x)
    leaders = quantizers_with_same_input(layer)
    found: dict[str, Any] = {}
    for slot, quantizer in named_quantizers(layer):
        if slot not in leaders:
            role, tensor = ("weights", weights[slot]) if slot in weights else ("activations", scaled)
            calibrator = build_calibrator(quantizer, getattr(options, role), f"calibration:{role}")
            found[slot] = calibrate_tensor(calibrator, tensor.detach())
        quantizer.load_calibration(found[leaders.get(slot, slot)])


def _scale_of(layer: QModule) -> Tensor:
    assert layer.input_scale is not None  # only such layers are looked at
    return layer.input_scale.factors
