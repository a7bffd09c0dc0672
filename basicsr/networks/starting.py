"""The quantized network that another one starts from: its file, and the record of its quantizers beside it."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from basicsr.networks.quantized import load_quantized
from basicsr.quant.insertion.insert import apply_quantization_map, named_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap, QuantizerEntry
from basicsr.quant.insertion.released import convert_released_2dquant, is_released_2dquant
from basicsr.quant.modules.base import QModule
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.registry import QUANTIZER_REGISTRY
from basicsr.utils.weights import load_weights_file

MAP_FILE = "quantization_map.json"
_CHANGES: dict[str, tuple[Callable[[QModule], bool], str]] = {
    "quantization:input_scales": (lambda layer: layer.input_scale is not None, "scales the channels of its input"),
    "quantization:rotate_inputs": (lambda layer: layer.input_rotation is not None, "rotates its input"),
    "quantization:late_division": (lambda layer: layer.late_division, "quantizes a softmax map before its division"),
}
"""What layers do with their inputs before they quantize them, by the option for it."""


def start_network(full_precision: nn.Module, file: Path, own: QuantizationMap) -> tuple[nn.Module, QuantizationMap]:
    """Return a quantized network with the weights and quantizers of its file, and the record of its quantizers.

    The record is `quantization_map.json` beside the file or in the folder above, where a run leaves it. Without one, the file is taken
    for a network with the quantizers of the run that starts, or, if it was released with 2DQuant, with those of that release.

    Args:
        full_precision: the network that both are made of; not changed.
        file: `path:pretrain_network_Q`.
        own: the record of the network that starts.

    Raises:
        CheckpointError: file or record cannot be read, or do not belong together or to this network.
        QuantizationError: the record does not fit the network.
    """
    quantization_map = _recorded(file) or _of_release(file, own) or own
    network = copy.deepcopy(full_precision)
    apply_quantization_map(network, quantization_map)
    try:
        load_quantized(network, file)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} If its quantizers are of other kinds than those of this run, lay the '{MAP_FILE}' of the run that made it "
            "beside it."
        ) from error
    uncalibrated = next((name for name, quantizer in named_quantizers(network) if not bool(quantizer.calibrated)), None)
    if uncalibrated is not None:
        raise CheckpointError(
            f"The quantizer '{uncalibrated}' in '{file}' was never calibrated: nothing can start from it."
        )
    return network.eval().requires_grad_(False), quantization_map


def load_weights_of(network: nn.Module, start: nn.Module) -> None:
    """Give a quantized network the weights and biases of another one of the same architecture, but none of its quantizers.

    Raises:
        QuantizationError: layers of one of them change their inputs before they quantize them, and those of the other do not; or the start has
            learned what has no place in the network.
    """
    for option, (changes, does) in _CHANGES.items():
        own, at_start = (
            {n for n, m in one.named_modules() if isinstance(m, QModule) and changes(m)} for one in (network, start)
        )
        if own != at_start:
            name = min(own ^ at_start)
            has, other = ("this run", "the network that it starts from")[:: 1 if name in own else -1]
            raise QuantizationError(
                f"In {has} the layer '{name}' {does}, in {other} it does not. Give this run the "
                f"'{option}' of the network that it starts from."
            )
    of_quantizers = tuple(f"{name}." for name, _ in named_quantizers(start))
    weights = {key: value for key, value in start.state_dict().items() if not key.startswith(of_quantizers)}
    left = network.load_state_dict(weights, strict=False).unexpected_keys
    if left:
        raise QuantizationError(
            f"The network that it starts from has learned '{left[0]}', which has no place in this run, so that it would compute something "
            "else. Cover its module as that run does, with 'quantization:coverage', or choose another start."
        )


def _recorded(file: Path) -> QuantizationMap | None:
    """Return the record beside a file, its options completed by their defaults; None where there is none."""
    found = next((place for place in (file.parent / MAP_FILE, file.parent.parent / MAP_FILE) if place.is_file()), None)
    if found is None:
        return None
    try:
        with explained(CheckpointError, f"The record '{found}' cannot be read", "Check its permissions."):
            recorded = QuantizationMap.from_dict(json.loads(found.read_text(encoding="utf-8")))
    except (ValueError, QuantizationError) as error:
        raise CheckpointError(f"The record '{found}' of the quantizers of '{file}' cannot be used: {error}") from error
    return _with_entries(recorded, {name: _completed(entry, found) for name, entry in recorded.quantizers.items()})


def _completed(entry: QuantizerEntry, record: Path) -> QuantizerEntry:
    """Return an entry with the options that are new since it was written, at their defaults."""
    return replace(entry, options=QUANTIZER_REGISTRY.resolve({"type": entry.type, **entry.options}, str(record))[1])


def _of_release(file: Path, own: QuantizationMap) -> QuantizationMap | None:
    """Return the record of a network released with 2DQuant, two learned bounds for each tensor; None for another file."""
    state_dict = load_weights_file(file)
    if not is_released_2dquant(state_dict):
        return None
    converted = convert_released_2dquant(state_dict)
    options = QUANTIZER_REGISTRY.resolve({"type": "Affine"}, str(file))[1]
    entries = {
        name: QuantizerEntry(entry.role, "Affine", QuantSpec(int(converted[f"{name}.bits"])), options)
        for name, entry in own.quantizers.items()
        if f"{name}.bits" in converted
    }
    return _with_entries(own, entries)


def _with_entries(quantization_map: QuantizationMap, entries: dict[str, QuantizerEntry]) -> QuantizationMap:
    """Return a record with other entries for some of its quantizers."""
    modules = (
        replace(m, quantizers={slot: entries.get(f"{m.name}.{slot}", entry) for slot, entry in m.quantizers.items()})
        for m in quantization_map.modules
    )
    return QuantizationMap(tuple(modules))
