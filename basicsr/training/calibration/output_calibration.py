"""Which bounds of a network are chosen by the outputs of their modules, and the pass that shows what these are given."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from statistics import geometric_mean

import torch
from torch import nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.modules.base import QModule
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.module_calls import ModuleCall, observe_calls
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.training.calibration.output_search import ArgumentSample, search_by_output
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import CalibrationOptions

SEARCH = "output"
"""What `Bounds.search` is for such bounds."""


def quantizers_by_output(network: nn.Module, globs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the module and the slot of each quantizer that the globs name, by its full name; none where there are no activations.

    Raises:
        OptionsError: a glob names no quantizer of an activation, or one that has no single pair of bounds.
    """
    activations = dict(named_quantizers(network, "activation"))
    places = {
        f"{module_name}.{slot}": (module_name, slot)
        for module_name, module in network.named_modules()
        if isinstance(module, QModule)
        for slot, _ in named_quantizers(module)
    }
    chosen: dict[str, tuple[str, str]] = {}
    for glob in (
        globs if activations else ()
    ):  # where weights alone are quantized, a recipe for both need not be changed
        names = [name for name in activations if fnmatchcase(name, glob)]
        if not names:
            raise OptionsError(
                f"Option 'calibration:by_output' names '{glob}', but no quantizer of an activation is called so. Names are such as "
                f"'{next(iter(activations), 'none here')}'."
            )
        for name in names:
            quantizer = activations[name]
            if not isinstance(quantizer, AffineQuantizer) or quantizer.spec.granularity != "per_tensor":
                raise OptionsError(
                    f"Option 'calibration:by_output' names '{name}', a {type(quantizer).__name__} {quantizer.spec.granularity}, but "
                    "such bounds can be found only for an Affine quantizer per_tensor. Take it out of the option, or all with "
                    "'calibration:by_output=[]'."
                )
            chosen[name] = places[name]
    return chosen


def calibrate_by_output(network: nn.Module, crops: torch.Tensor, options: CalibrationOptions) -> dict[str, Bounds]:
    """Choose the bounds that `options.by_output` names by the outputs of their modules, in full precision but for them.

    Args:
        network: a network whose quantizers are calibrated; the search sets out from their bounds.
        crops: LR crops (N, 3, h, w) in 0..1.
        options: the names, and how many crops go through the network together.

    Returns:
        The new bounds, which the quantizers have already, by the name of the quantizer.
    """
    chosen = quantizers_by_output(network, options.by_output)
    if not chosen:
        return {}
    samples = {module: ArgumentSample(len(crops)) for module, _ in chosen.values()}
    device = next(network.parameters()).device
    with torch.no_grad(), bypass_quantizers(network):
        for batch in crops.split(options.batch_size):

            def keep(name: str, call: ModuleCall, num_crops: int = len(batch)) -> None:
                samples[name].add(call, num_crops)

            with observe_calls(network, samples, keep):
                network(batch.to(device))
    found, shares = {}, []
    for name, (module, slot) in chosen.items():
        result = search_by_output(network.get_submodule(module), slot, samples[module].arguments())
        found[name] = Bounds(result.lower_bound, result.upper_bound, result.mean_squared_error, SEARCH)
        if result.error > 0:
            shares.append(result.error / result.error_before)
        release_freed_memory()
    get_logger().info(
        "%d quantizers have bounds chosen by the output of their module: its squared error is %.0f%% of what it was (geometric mean).",
        len(found),
        100 * geometric_mean(shares or [1.0]),
    )
    return found
