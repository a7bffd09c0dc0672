"""Weights of quantized layers with singular values nearer together, before anything is calibrated."""

import math

import torch
from torch import Tensor, nn

from basicsr.quant.modules.base import QModule
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.module_calls import first_inputs
from basicsr.quant.search.conditioning import condition_number, conditioned_weight
from basicsr.quant.search.weight_fit import InputMoments
from basicsr.quant.spec import QuantizationError
from basicsr.training.calibration.weight_parts import WeightPart, updated_moments, weight_parts
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import CalibrationOptions

STEPS = 50
"""Of proximal gradient descent, for each weight."""
_DAMPING = 1e-12  # a share of the mean variance that changes nothing


def condition_weights(network: nn.Module, crops: Tensor, options: CalibrationOptions) -> dict[str, tuple[float, float]]:
    """Bring the singular values of quantized weights nearer together, while layers make nearly the same of the calibration crops.

    Layers are looked at one by one, for their inputs in full precision; see `search.conditioning`. Where a layer has a bias, the inputs
    are taken less their means, and the bias takes the mean of what changes. The weight of a convolution counts as a matrix of a row for
    each output channel. Layers that do not say what their weights are multiplied with, or whose inputs are constant, stay as they are.

    Args:
        network: a network with quantizers; weights and biases are changed in place.
        crops: LR crops (N, 3, h, w) in 0..1.
        options: how strongly (`conditioning`), and how many crops go through the network together.

    Returns:
        The condition numbers before and after, by the name of the weight's quantizer; of groups, the largest.

    Raises:
        QuantizationError: inputs are not finite; names the layer.
    """
    if not options.conditioning:
        return {}
    layers = {n: m for n, m in network.named_modules() if isinstance(m, QModule) and weight_parts(m)}
    numbers: dict[str, tuple[float, float]] = {}
    with torch.no_grad():
        for name, moments in _moments(network, layers, crops, options.batch_size).items():
            if all(one.vary for one in moments):
                for part in weight_parts(layers[name]):
                    numbers[f"{name}.{part.path}"] = _condition(name, part, moments, options.conditioning)
    release_freed_memory()
    if numbers:
        before, after = (
            math.exp(sum(map(math.log, of_all)) / len(numbers)) for of_all in zip(*numbers.values(), strict=True)
        )
        get_logger().info(
            "%d weights were conditioned: the geometric mean of their condition numbers went from %.0f to %.0f.",
            len(numbers), before, after,
        )  # fmt: skip
    return numbers


def _moments(
    network: nn.Module, layers: dict[str, QModule], crops: Tensor, batch_size: int
) -> dict[str, list[InputMoments]]:
    """Return the moments of what each group of rows is multiplied with in full precision, by the name of the layer."""
    found: dict[str, list[InputMoments]] = {}
    device = next(network.parameters()).device
    for batch in crops.split(batch_size):
        with bypass_quantizers(network):
            inputs = first_inputs(network, layers, batch.to(device))
        for name in list(inputs):
            patches = layers[name].patches(layers[name].scaled(inputs.pop(name)))
            if patches is not None:
                found[name] = updated_moments(found.get(name, []), patches, patches)
    return found


def _condition(name: str, part: WeightPart, moments: list[InputMoments], strength: float) -> tuple[float, float]:
    """Change the rows of a weight and their biases; return the condition numbers before and after."""
    before = part.weight.flatten(1).chunk(len(moments))
    try:
        second = [one.second(_DAMPING, central=part.bias is not None)[1] for one in moments]
    except QuantizationError as error:
        raise QuantizationError(f"The weight of '{name}' cannot be conditioned. {error}") from error
    after = [conditioned_weight(w, h, strength, STEPS) for w, h in zip(before, second, strict=True)]
    numbers = tuple(max(map(condition_number, of_groups)) for of_groups in (before, after))
    lost = [(old.double() - new) @ one.means[1] for old, new, one in zip(before, after, moments, strict=True)]
    part.replace(after, lost)
    return numbers[0], numbers[1]
