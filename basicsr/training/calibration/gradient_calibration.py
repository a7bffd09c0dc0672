"""Bounds of activations that are chosen by the output of the whole network, through its derivatives."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import named_quantizers, quantizers_with_same_input
from basicsr.quant.observe.output_gradients import squared_gradients
from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.search.weighted_search import WeightedErrors, search_weighted
from basicsr.training.calibration.output_calibration import quantizers_by_output
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import CalibrationOptions

SEARCH = "gradient"
"""What `Bounds.search` is for such bounds."""
SAMPLES = 2**17
"""Elements of an activation that are looked at, over all crops and channels."""
_FEWEST_OF_CHANNEL = 256  # in a crop


class _Found(NamedTuple):
    bounds: Bounds
    error_before: float
    error: float


def check_by_gradient(network: nn.Module, options: CalibrationOptions) -> None:
    """Refuse quantizers of activations that have no bounds to choose, before any data are read.

    Raises:
        OptionsError: names the quantizer.
    """
    for name, quantizer in named_quantizers(network, "activation") if options.by_gradient else ():
        if not isinstance(quantizer, AffineQuantizer):
            raise OptionsError(
                f"Option 'calibration:by_gradient' chooses lower and upper bounds of Affine quantizers, but '{name}' is a "
                f"{type(quantizer).__name__}. Set it to 0, or 'quantization:activation_quantizer' to {{type: Affine}}."
            )


def calibrate_by_gradient(network: nn.Module, crops: Tensor, options: CalibrationOptions) -> dict[str, Bounds]:
    """Choose bounds of activations so that the squared error of the network's output, not that of the activation, is smallest.

    To second order that error is the sum of the squared errors of all elements, each weighted with the squared derivative of the output
    by it, see `squared_gradients`. So an outlier that later layers ignore, as in front of a sigmoid, does not stretch the grid.

    Args:
        network: a network whose quantizers are calibrated; they get the new bounds.
        crops: LR crops (N, 3, h, w) in 0..1, of which the first `options.by_gradient` are used, one after the other.
        options: the number of crops.

    Returns:
        The new bounds, by the name of the quantizer. Quantizers whose input is constant, or does not reach the output, keep theirs, and so
        do those of `options.by_output`, where errors of a whole row add up.
    """
    followers = quantizers_with_same_input(network)
    settled = quantizers_by_output(network, options.by_output)
    activations = dict(named_quantizers(network, "activation")) if options.by_gradient else {}
    quantizers = {name: quantizer for name, quantizer in activations.items() if name not in settled}
    leaders = {n: q for n, q in quantizers.items() if n not in followers and isinstance(q, AffineQuantizer)}
    if not leaders:
        return {}
    chosen = crops[: options.by_gradient].to(next(network.parameters()).device)
    samples = _sample(network, leaders, chosen)
    found = {name: _search(leaders[name], torch.cat(of_crops, 1)) for name, of_crops in samples.items()}
    bounds = {n: found[followers.get(n, n)].bounds for n in quantizers if followers.get(n, n) in found}
    for name, result in bounds.items():
        quantizers[name].load_calibration(result)
    release_freed_memory()
    before, after = (sum(of_one) for of_one in zip(*((f.error_before, f.error) for f in found.values()), strict=True))
    get_logger().info(
        "%d quantizers of activations have bounds chosen by the output of the network: its squared error by them should be %.0f%% of before.",
        len(bounds),
        100 * (after / before if before else 1),
    )
    return bounds


def _sample(network: nn.Module, quantizers: Mapping[str, AffineQuantizer], crops: Tensor) -> dict[str, list[Tensor]]:
    """Return elements and their weights, (2, n, channels) from each crop, by the name of the quantizer; 1 channel if per tensor."""
    generator = torch.Generator().manual_seed(0)
    samples: dict[str, list[Tensor]] = {}
    for crop in crops.split(1):
        for name, x, weights in squared_gradients(network, quantizers, crop, generator):
            axis = quantizers[name].spec.channel_axis
            pair = torch.stack([x, weights])
            pair = pair.flatten(1).unsqueeze(2) if axis is None else pair.movedim(axis % x.ndim + 1, -1).flatten(1, -2)
            number = max(SAMPLES // (len(crops) * pair.shape[2]), _FEWEST_OF_CHANNEL)
            if pair.shape[1] > number:
                places = torch.randint(pair.shape[1], (number,), generator=generator).to(pair.device)
                pair = pair.index_select(1, places)
            samples.setdefault(name, []).append(pair.cpu())
    return samples


def _search(quantizer: AffineQuantizer, samples: Tensor) -> _Found:
    """Return the bounds for elements and their weights (2, n, channels), and the weighted errors with the old bounds and with them."""
    spec = quantizer.spec
    lower, upper = (bound.detach().double().cpu().reshape(-1).clone() for bound in quantizer.affine_bounds())
    before = after = 0.0
    for channel, (values, weights) in enumerate(samples.unbind(2)):
        errors = WeightedErrors(values, weights, spec.max_code)
        old = float(errors(lower[channel : channel + 1], upper[channel : channel + 1]))
        best = search_weighted(errors, symmetric=spec.symmetric)
        changes = best is not None and best.error < old and best.upper - best.lower >= 2 * MINIMAL_WIDTH
        if best is not None and changes:
            lower[channel], upper[channel] = best.lower, best.upper
        before, after = before + old, after + (best.error if best is not None and changes else old)
    shape = quantizer.upper_bound.shape
    return _Found(Bounds(lower.float().view(shape), upper.float().view(shape), search=SEARCH), before, after)
