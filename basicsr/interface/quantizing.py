"""Put quantizers into any network and calibrate them."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.interface.crops import Crops, as_crops
from basicsr.interface.networks import (
    Probe,
    layers_left_out,
    plain_copy,
    probe,
    quantizable_types,
    refused_layers,
    size_multiple_of,
)
from basicsr.interface.quantized_network import QuantizedNetwork
from basicsr.interface.recipes import check_changes, read_recipe, resolve_options, trains
from basicsr.networks.quantized import quantized_copy
from basicsr.quant.insertion.coverage import AUTOMATIC, PRESETS, find_preset
from basicsr.quant.insertion.selection import select_modules
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.spec import FULL_PRECISION_BITS, MAX_BITS, MIN_BITS, QuantizationError
from basicsr.training.bit_choice import check_average
from basicsr.training.calibration.network_calibration import calibrate_network, check_calibrators
from basicsr.training.chosen_bits import with_chosen_bits
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options, merge

AUTO = "auto"
_SECTIONS_KEPT = ("quantization", "calibration")


def quantize(
    network: nn.Module,
    crops: Crops,
    bits: int = 4,
    method: str = "DOBI",
    *,
    coverage: str = AUTO,
    w_bits: int | None = None,
    a_bits: int | None = None,
    average_bits: float | None = None,
    exclude: tuple[str, ...] | list[str] = (),
    size_multiple: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> QuantizedNetwork:
    """Quantize a network: put quantizers into a copy of it and find their bounds on calibration crops. Nothing is trained.

    The recipe of the method is the YAML file that the commands use; `distill` does what it asks for after calibration. Layers that
    cannot be quantized, such as transposed convolutions and `nn.MultiheadAttention`, stay in full precision and are named in the log
    and in `left_out`.

    Args:
        network: any module that maps images (n, 3, h, w) in 0..1 to (n, 3, h * scale, w * scale); it is not changed. Its copy computes in
            float32, in evaluation mode, on its device.
        crops: LR calibration crops, float (n, 3, h, w) in 0..1, or a list of images (files, arrays); see `draw_crops`.
        bits: bits of weights and activations, 2 to 8.
        method: a name of `methods()`, such as MinMax, Percentile, DOBI, DBDC, DFSQ, 2DQuant, BRECQ.
        coverage: `2dquant`, `body` or `full` (all linear layers and convolutions, the first and the last at 8 bits), or `auto`: the
            preset of networks that this package knows, and `full` for all others.
        w_bits: bits of the weights, where they differ from `bits`; 32 for full precision.
        a_bits: bits of the activations, likewise.
        average_bits: give each quantizer from 2 to 8 bits, so that the expected error of the output is smallest and this is their average, see
            `training.bit_choice`; it takes the place of `bits`, and needs scipy. Layers to which the coverage gives bits of their own, such
            as the first and the last one of `full`, keep them.
        exclude: globs on the names of layers, or of single quantizers, that stay in full precision.
        size_multiple: heights and widths of images must be multiples of this; by default the network's attribute, or 1.
        options: changes of the recipe in the sections and names of the YAML files, such as
            `{"quantization": {"weight_granularity": "per_channel"}}`.

    Raises:
        OptionsError: an argument is out of range, a name is unknown, or the network does not work for the crops.
        DataError: shape, type or range of the crops.
        QuantizationError: no layer can be quantized, or a layer's values are not finite.
    """
    w_bits, a_bits = _bits_of_both(bits if average_bits is None else check_average(average_bits), w_bits, a_bits)
    check_changes(options)
    recipe = read_recipe(method)
    full_precision = plain_copy(network)
    multiple = size_multiple_of(full_precision, size_multiple)
    lr = as_crops(crops, multiple)
    seen = probe(full_precision, lr[:1])
    coverage = _choose_coverage(full_precision, coverage)
    left_out = layers_left_out(full_precision, seen.calls)
    section = {
        "coverage": coverage, "w_bits": w_bits, "a_bits": a_bits, "average_bits": average_bits, "exclude": list(exclude),
    }  # fmt: skip
    changes = merge({"quantization": section}, dict(options or {}))
    if coverage == "full":
        changes["quantization"] = _corrected(full_precision, seen, changes["quantization"])
    resolved = with_chosen_bits(full_precision, resolve_options(recipe, type(full_precision).__name__, changes), lr)
    quantized, quantization_map = quantized_copy(full_precision, resolved, share_weights=False)
    check_calibrators(quantized, resolved.calibration)
    _check_twin(quantized, lr[:1], seen)
    report = calibrate_network(quantized, lr, resolved.calibration)
    _tell(full_precision, resolved, len(quantization_map.quantizers), len(lr), left_out)
    return QuantizedNetwork(
        quantized.requires_grad_(False),
        seen.scale,
        multiple,
        full_precision=full_precision,
        quantization_map=quantization_map,
        calibration=tuple(report),
        sections={"recipe": method, **resolved.model_dump(include=set(_SECTIONS_KEPT))},
        methods=(f"{resolved.method_name}, calibration" if trains(resolved) else resolved.method_name,),
        left_out=left_out,
        smallest_side=min(lr.shape[-2:]),
    )


def _bits_of_both(bits: int, w_bits: int | None, a_bits: int | None) -> tuple[int, int]:
    """Return the bits of weights and of activations.

    Raises:
        OptionsError: a number of bits is out of range.
    """
    for name, value in {"bits": bits, "w_bits": w_bits, "a_bits": a_bits}.items():
        if value != FULL_PRECISION_BITS or name == "bits":
            _check_bits(name, value)
    return w_bits or bits, a_bits or bits


def _check_bits(name: str, bits: Any) -> None:
    if bits is None and name != "bits":
        return
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise OptionsError(f"{name} is {bits!r}, but must be an integer from {MIN_BITS} to {MAX_BITS}.")


def _choose_coverage(network: nn.Module, coverage: str) -> str:
    """Return the name of a preset; for `auto`, the one that is meant for the network.

    Raises:
        QuantizationError: there is no such preset, or it fits no layer.
    """
    if coverage != AUTO:
        find_preset(coverage)
        return coverage
    of_this_package = type(network).__module__.startswith("basicsr.archs.")
    for name in AUTOMATIC[:-1] if of_this_package else ():
        try:
            select_modules(network, name, MAX_BITS, MAX_BITS)
        except QuantizationError:
            continue
        return name
    return AUTOMATIC[-1]


def _corrected(network: nn.Module, seen: Probe, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `quantization` with what a forward pass corrects of the coverage `full`.

    Layers that are not called or cannot be quantized are excluded. The preset takes the first and the last layer by the order of
    registration, which in a network of others need not be that of execution: overrides set that right.
    """
    known = quantizable_types()
    registered = [name for name, module in network.named_modules() if type(module).__name__ in known]
    refused = refused_layers(network)
    unusable = [name for name in registered if name not in seen.calls or name in refused]
    if len(unusable) == len(registered):
        raise QuantizationError(
            f"The network {type(network).__name__} calls no layer that can be quantized. These are of the classes {', '.join(sorted(known))}."
        )
    with_weight = [
        n for n in registered if n not in refused and getattr(network.get_submodule(n), "weight", None) is not None
    ]
    executed = [name for name in seen.calls if name in set(with_weight)]
    taken_for_ends, ends = (set(names[:1] + names[-1:]) for names in (with_weight, executed))
    end_bits = PRESETS["full"].end_bits
    own = (section["w_bits"], section["a_bits"])
    at_ends = tuple(FULL_PRECISION_BITS if one == FULL_PRECISION_BITS else end_bits for one in own)
    bits = {
        **dict.fromkeys(sorted(taken_for_ends - ends), own),
        **dict.fromkeys(sorted(ends - taken_for_ends), at_ends),
    }

    def excluded(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in section["exclude"])

    overrides = [
        {"match": n, "w_bits": w, "a_bits": a} for n, (w, a) in bits.items() if n not in unusable and not excluded(n)
    ]
    return {
        **section,
        "exclude": [*section["exclude"], *(name for name in unusable if not excluded(name))],
        "overrides": [*overrides, *section.get("overrides", [])],
    }


@torch.no_grad()
def _check_twin(quantized: nn.Module, lr: Tensor, seen: Probe) -> None:
    """Refuse a network that its quantized layers do not stand in for, such as one that looks into their attributes."""
    with bypass_quantizers(quantized):
        output = probe(quantized, lr).output
    difference = float((output - seen.output).abs().max())
    size = float(seen.output.abs().max())
    if not difference <= 1e-3 * max(size, 1e-6):
        raise QuantizationError(
            f"With quantizers that change nothing, the network {type(quantized).__name__} returns something else: the largest difference is "
            f"{difference:g}, the largest value {size:g}. It draws random numbers or uses a layer in another way than by calling it; "
            "leave that layer out with 'exclude'."
        )


def _tell(network: nn.Module, options: Options, quantizers: int, crops: int, left_out: Mapping[str, str]) -> None:
    assert options.quantization is not None  # it has just been followed
    get_logger().info(
        "%s: %s put %d quantizers into it (coverage '%s') and calibrated them on %d crops.",
        type(network).__name__, options.method_name, quantizers, options.quantization.coverage, crops,
    )  # fmt: skip
    for name, reason in left_out.items():
        get_logger().warning("The layer '%s' stays in full precision: %s.", name, reason)
