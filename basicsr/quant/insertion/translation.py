"""Start the quantizers of a network from those of another one, of other kinds: what each states of its range goes over."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError

UNCHANGED = "unchanged"


@dataclass
class Translation:
    """How the quantizers of a network started from those of another one.

    Attributes:
        ways: how many quantizers went which way, by role, kind before, kind now, and how in a few words.
        calibrated: names of quantizers that are calibrated anew, since the other network has none in their place.
        gated: names of quantizers that take bounds and are calibrated besides, see `Quantizer.needs_data_to_start`.
        left_out: names of the quantizers of the other network that have no place in this one.
        rounded: names of the quantizers whose weights were set to what their learned roundings stand for.
    """

    ways: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    calibrated: list[str] = field(default_factory=list)
    gated: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rounded: list[str] = field(default_factory=list)

    @property
    def needs_data(self) -> list[str]:
        """Names of the quantizers that calibration data are needed for."""
        return [*self.calibrated, *self.gated]

    def describe(self) -> str:
        """Return lines for the log."""
        lines = [
            f"{count} {role} quantizers: {before} -> {now}, {how}"
            for (role, before, now, how), count in self.ways.items()
        ]
        lists = {
            "calibrated anew, as the start has none in their place": self.calibrated,
            "calibrated besides, since bounds are not all that they start from": self.gated,
            "of the start without a place in this coverage, left out": self.left_out,
            "whose weights begin at the values that their learned roundings stand for": self.rounded,
        }
        lines += [f"{len(names)} quantizers {what}: such as '{names[0]}'" for what, names in lists.items() if names]
        return "\n".join(f"  {line}" for line in lines)


def translate_quantizers(
    network: nn.Module, own: QuantizationMap, start: nn.Module, of_start: QuantizationMap
) -> Translation:
    """Set up the quantizers of a network from those in the same places of another one, with its weights.

    A quantizer of the same kind, specification and options takes the whole state over. Any other one starts from the range that the other
    states (`Quantizer.stated_range`), as its class decides (`Quantizer.load_range`).

    Args:
        network: the network that starts. Its weights are already those of `start`.
        own: the record of its quantizers.
        start: a calibrated network of the same architecture.
        of_start: the record of that one's quantizers.

    Returns:
        What was done. Quantizers that are listed in `needs_data` are not ready: calibrate, then call this once more.

    Raises:
        QuantizationError: a quantizer cannot start from the one in its place; says which, and what it would need.
    """
    sources, weights = dict(named_quantizers(start)), quantized_weights(start)
    own_weights = quantized_weights(network)
    translation = Translation(left_out=[name for name in sources if name not in own.quantizers])
    for name, target in named_quantizers(network):
        source = sources.get(name)
        if source is None:
            translation.calibrated.append(name)
            continue
        before, now = of_start.quantizers[name], own.quantizers[name]
        if before == now:
            target.load_state_dict(source.state_dict())
            translation.ways[now.role, before.type, now.type, UNCHANGED] += 1
            continue
        with _named(name, before.type, now.type):
            how = translate_quantizer(source, target, weights.get(name), own_weights.get(name))
        translation.ways[now.role, before.type, now.type, how] += 1
        if target.needs_data_to_start:
            translation.gated.append(name)
        if source.has_learned_rounding:
            translation.rounded.append(name)
    return translation


@torch.no_grad()
def translate_quantizer(source: Quantizer, target: Quantizer, weight: Tensor | None, own_weight: Tensor | None) -> str:
    """Set up a quantizer from one of another kind; return how in a few words.

    Args:
        source: the quantizer to start from.
        target: the one that starts.
        weight: what `source` quantizes, for quantizers of weights.
        own_weight: the same in the network that starts, which is changed where `source` has learned how to round.
    """
    if source.spec.bits != target.spec.bits:
        raise QuantizationError(
            f"It has {target.spec.bits} bits and the one to start from {source.spec.bits}: bounds that suit one number of bits clip too "
            "much or too little for another. Make the start with the same bits."
        )
    if source.bounds_shape and not target.bounds_shape:
        raise QuantizationError(
            "It has one pair of bounds for the tensor and the one to start from one for each channel. Set "
            "'quantization:weight_granularity' or 'quantization:activation_granularity' to per_channel, or make the start per_tensor."
        )
    stated = source.stated_range(weight)
    if source.has_learned_rounding and weight is not None and own_weight is not None:
        own_weight.copy_(source.fake_quantize(weight))
    return target.load_range(stated, own_weight)


@contextmanager
def _named(name: str, before: str, now: str) -> Iterator[None]:
    """Say which quantizer cannot start."""
    try:
        yield
    except QuantizationError as error:
        raise QuantizationError(
            f"The quantizer '{name}', of the kind {now}, cannot start from the one of the kind {before} in 'path:pretrain_network_Q'. {error}"
        ) from error
