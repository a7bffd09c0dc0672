"""Channels behind a LayerNorm get one range, for its own factors and the layers behind it can carry that."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.norm_fold import common_range, fold_into
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.readers import Readers, find_readers
from basicsr.training.calibration.observing import calibrate_inputs
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import CalibrationOptions
from basicsr.utils.registry import CALIBRATOR_REGISTRY

SMALLEST_SHARE = 1e-3
"""Of the widest channel of a norm: narrower ones are not blown up beyond it."""


def fold_norms(network: nn.Module, crops: Tensor, options: CalibrationOptions) -> list[str]:
    """Give all channels that a LayerNorm hands to quantized linear layers one range, and let norm and layers carry the change.

    The bounds of each channel are those that the calibrator of the options finds for it, also where quantizers have one of their own. What
    the network computes in full precision stays the same. A norm is left as it is where something else reads its output, too, or a layer
    cannot take the change back; the log says which and why.

    Args:
        network: a network with quantizers; norms, weights and biases are changed in place.
        crops: LR crops (N, 3, h, w) in 0..1, of which the first `options.fold_norms` are used.
        options: the number of crops, and how bounds are found.

    Returns:
        The names of the norms that were folded.

    Raises:
        QuantizationError: activations are not finite; names the quantizer.
    """
    if not options.fold_norms:
        return []
    modules = dict(network.named_modules())
    norms = {name: module for name, module in modules.items() if type(module) is nn.LayerNorm}
    layers = {name: module for name, module in modules.items() if isinstance(module, QModule)}
    for layer in layers.values():
        if layer.input_scale is not None:
            layer.set_input_scale(torch.ones_like(layer.input_scale.factors))
    first = crops[:1].to(next(network.parameters()).device)
    with bypass_quantizers(network):
        readers = find_readers(network, norms, layers, first)
    readers = {name: of_norm for name, of_norm in readers.items() if of_norm.layers}
    quantizers = dict(named_quantizers(network, "activation"))
    first_of = {name: _first_quantizer(quantizers, of_norm) for name, of_norm in readers.items()}
    obstacles = {name: _obstacle(norms[name], layers, of_norm, first_of[name]) for name, of_norm in readers.items()}
    places = {name: place for name, place in first_of.items() if place is not None and obstacles[name] is None}
    calibrators = {
        place: CALIBRATOR_REGISTRY.build(
            options.activations,
            replace(quantizers[place].spec, granularity="per_channel", channel_axis=-1),
            where="calibration:activations",
        )
        for place in places.values()
    }
    found = calibrate_inputs(network, crops[: options.fold_norms], calibrators, options.batch_size)
    for name, place in places.items():
        bounds = found[place]
        assert isinstance(bounds, Bounds)  # what else a calibrator finds was refused
        change = common_range(bounds.lower_bound, bounds.upper_bound, SMALLEST_SHARE)
        fold_into(norms[name], (layers[layer] for layer in readers[name].layers), change)
    _tell(list(places), {name: why for name, why in obstacles.items() if why is not None})
    return list(places)


def check_norm_folding(network: nn.Module, options: CalibrationOptions) -> None:
    """Refuse quantizers and calibrators that have no bounds of a tensor, before any data are read.

    Raises:
        OptionsError: names what there is instead.
    """
    if not options.fold_norms:
        return
    kind = options.activations["type"]
    if not issubclass(CALIBRATOR_REGISTRY.get(kind, "calibration:activations:type").gives, Bounds):
        raise OptionsError(
            f"Option 'calibration:fold_norms' needs the bounds of each channel, but 'calibration:activations' is {kind}, which finds none. "
            "Set it to 0, or choose another calibrator such as DOBI."
        )
    for name, quantizer in named_quantizers(network, "activation"):
        if quantizer.spec.granularity == "per_channel":
            raise OptionsError(
                f"Option 'calibration:fold_norms' gives all channels one range, but the quantizer '{name}' has a range for each. Set it to 0, "
                "or 'quantization:activation_granularity' to per_tensor."
            )


def _first_quantizer(quantizers: Iterable[str], readers: Readers) -> str | None:
    """Return the name of the first quantizer of an input among the layers that read a norm; None where there is none."""
    return next((name for name in quantizers if name.startswith(tuple(f"{layer}." for layer in readers.layers))), None)


def _obstacle(norm: nn.LayerNorm, layers: Mapping[str, QModule], readers: Readers, quantizer: str | None) -> str | None:
    """Return why a norm that quantized layers read cannot be folded, as the end of a sentence; None where it can."""
    if not norm.elementwise_affine or norm.bias is None or norm.weight.dim() != 1:
        return "it has no weight and bias for each channel"
    if readers.others:
        return f"its output goes through {', '.join(readers.others)} besides"
    for name in readers.layers:
        weight, bias = (layers[name]._parameters.get(key) for key in ("weight", "bias"))
        if weight is None or weight.dim() != 2:
            return f"'{name}', which reads it, is no linear layer"
        if bias is None:
            return f"'{name}', which reads it, has no bias"
        if layers[name].input_rotation is not None:
            return f"'{name}', which reads it, rotates its input"
        if name in readers.shared:
            return f"'{name}', which reads it, reads something else, too"
    return None if quantizer is not None else "none of the layers that read it quantizes its input"


def _tell(folded: list[str], obstacles: Mapping[str, str]) -> None:
    for name, why in obstacles.items():
        get_logger().warning("The norm '%s' is not folded into the layers behind it: %s.", name, why)
    if folded:
        get_logger().info("%d norms were folded: all channels that they hand on have one range.", len(folded))
    else:
        get_logger().warning("No LayerNorm could be folded: none stands alone in front of quantized linear layers.")
