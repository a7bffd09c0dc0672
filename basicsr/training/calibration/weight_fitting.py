"""Weights that fit the quantized inputs of their layers, found layer by layer in the order of execution, without training."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import CalibrationResult
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.modules.base import QModule
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.module_calls import first_inputs
from basicsr.quant.search.weight_fit import InputMoments, compensated_rounding, fitted_weight
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.observing import build_calibrator
from basicsr.training.calibration.weight_parts import WeightPart, updated_moments, weight_parts
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import CalibrationOptions

DAMPING = 0.01
"""Share of the mean variance of a layer's inputs that is added to each, as in GPTQ."""


def fit_weights(network: nn.Module, crops: Tensor, options: CalibrationOptions) -> dict[str, CalibrationResult]:
    """Change weights and biases so that each layer makes of its quantized inputs what `options.weight_fit_target` asks for.

    By default that is what it made of those in full precision. Each layer is looked at once, in the order of execution, when all
    layers before it have their new weights. Its weight becomes that of the least squares of `search.weight_fit`; its bounds are
    searched anew for that one; then it is rounded with compensated errors, and the bias takes the mean of what is left. So
    weights lie on their grids afterwards. Layers whose weights are not quantized, that do not say what their weights are
    multiplied with, or whose inputs are constant stay as they are.

    Args:
        network: a network whose quantizers are calibrated; its weights are changed in place.
        crops: LR crops (N, 3, h, w) in 0..1, of which the first `options.weight_fit` are used. The inputs of all layers for them are
            held in memory.
        options: number of crops, and how the bounds of weights are found.

    Returns:
        What was found for the weight quantizers, by their names.

    Raises:
        QuantizationError: inputs are not finite; names the layer.
    """
    if not options.weight_fit:
        return {}
    chosen = crops[: options.weight_fit].to(next(network.parameters()).device)
    layers = {n: m for n, m in network.named_modules() if isinstance(m, QModule) and weight_parts(m)}
    found: dict[str, CalibrationResult] = {}
    with torch.no_grad():
        with bypass_quantizers(network):
            inputs = first_inputs(network, layers, chosen)

        def fit(_module: nn.Module, arguments: tuple[Any, ...], name: str) -> None:
            if name in inputs:  # the first call of a layer decides
                of_layer = _fit_layer(name, layers[name], inputs.pop(name), arguments[0], options)
                found.update({f"{name}.{slot}": result for slot, result in of_layer.items()})

        with ExitStack() as hooks:
            for name, module in layers.items():
                hooks.callback(module.register_forward_pre_hook(partial(fit, name=name)).remove)
            network(chosen)
    release_freed_memory()
    get_logger().info("%d weights were fitted to quantized inputs on %d crops.", len(found), len(chosen))
    return found


def check_weight_fit(network: nn.Module, options: CalibrationOptions) -> None:
    """Refuse weights that have no grid of their own to be rounded to, before any data are read.

    Raises:
        OptionsError: names the layer: its grid is not uniform, or follows from the weight.
    """
    for name, module in network.named_modules() if options.weight_fit else ():
        for part in weight_parts(module) if isinstance(module, QModule) else ():
            try:
                part.quantizer.affine_bounds()
            except QuantizationError as error:
                raise OptionsError(
                    f"Option 'calibration:weight_fit' rounds weights to their grid. {error} Set it to 0, or choose another "
                    f"'quantization:weight_quantizer' than {type(part.quantizer).__name__} for '{name}'."
                ) from error


def _fit_layer(
    name: str, layer: QModule, x: Tensor, z: Tensor, options: CalibrationOptions
) -> dict[str, CalibrationResult]:
    """Fit the weights of a layer to its input z from the quantized network, given x from the one in full precision."""
    found: dict[str, CalibrationResult] = {}
    for part in weight_parts(layer):
        moments = _moments(layer, part, x, z, options.weight_fit_target)
        if moments is None or not all(one.vary for one in moments):
            continue
        try:
            found[part.path] = _fit_part(part, moments, options)
        except QuantizationError as error:
            raise QuantizationError(f"The weight of '{name}' cannot be fitted. {error}") from error
    return found


def _moments(layer: QModule, part: WeightPart, x: Tensor, z: Tensor, target: float) -> list[InputMoments] | None:
    """Return the moments of each group's inputs, crop by crop; None where the layer does not say what its weight is multiplied with.

    In the place of inputs in full precision is their mean with the quantized ones, which count 1 - `target`.
    """
    moments: list[InputMoments] = []
    for of_x, of_z in zip(x.split(1), z.split(1), strict=True):
        full, quantized = layer.patches(layer.scaled(of_x)), layer.patches(part.of_input(layer.scaled(of_z)))
        if full is None or quantized is None:
            return None
        moments = updated_moments(moments, torch.lerp(quantized, full, target), quantized)
    return moments


def _fit_part(part: WeightPart, moments: list[InputMoments], options: CalibrationOptions) -> CalibrationResult:
    """Replace the rows of a weight, and their biases, and calibrate their quantizer for them."""
    rows = part.weight.flatten(1)
    before = rows.chunk(len(moments))
    second = [one.second(DAMPING, central=part.bias is not None) for one in moments]
    fitted = torch.cat([fitted_weight(w, *matrices) for w, matrices in zip(before, second, strict=True)])
    calibrator = build_calibrator(part.quantizer, options.weights, "calibration:weights")
    result = calibrate_tensor(calibrator, fitted.to(part.weight).view_as(part.weight))
    part.quantizer.load_calibration(result)
    lower, upper = (bound.double().reshape(-1, 1).expand(len(rows), 1) for bound in part.quantizer.affine_bounds())
    grids = zip(fitted.chunk(len(moments)), lower.chunk(len(moments)), upper.chunk(len(moments)), second, strict=True)
    after = [compensated_rounding(w, zz, low, high, part.quantizer.spec.max_code) for w, low, high, (_, zz) in grids]
    left = [
        old.double() @ one.means[0] - new @ one.means[1] for old, new, one in zip(before, after, moments, strict=True)
    ]
    part.replace(after, left)
    return result
