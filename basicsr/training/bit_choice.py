"""Bits for each quantizer of a network, by what its errors do to the output, under an average: mixed precision."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights, quantizers_with_same_input
from basicsr.quant.modules.base import Role
from basicsr.quant.observe.output_gradients import squared_gradients
from basicsr.quant.search.weighted_search import WeightedBounds, WeightedErrors, error_of_rows, search_weighted
from basicsr.quant.spec import MAX_BITS, MIN_BITS, QuantSpec
from basicsr.training.bit_allocation import allocate_bits
from basicsr.utils.errors import OptionsError

CHOICES = range(MIN_BITS, MAX_BITS + 1)
SAMPLES = 2**15
"""Elements of an activation that are looked at, over all crops."""


@dataclass
class ExpectedErrors:
    """What a quantizer's errors are expected to do to the output of the network.

    Attributes:
        role: whether it quantizes a weight or an activation.
        size: number of elements of its tensor, of an activation for one crop.
        of_bits: for each number of bits the squared error of the output, summed over its elements and averaged over crops.
        bounds: of an activation, for each number of bits those of the grid that this is the error of; empty where all of it is one value.
        same_input: other quantizers of the same tensor, which get the same bits.
    """

    role: Role
    size: int
    of_bits: dict[int, float] = field(default_factory=dict)
    bounds: dict[int, tuple[float, float]] = field(default_factory=dict)
    same_input: list[str] = field(default_factory=list)


def check_average(average_bits: float) -> int:
    """Return the whole number of bits at an average or below it, which quantizers have before bits are chosen.

    Raises:
        OptionsError: no choice of bits has this average.
    """
    if not MIN_BITS <= average_bits <= MAX_BITS:  # also where it is no number
        raise OptionsError(f"average_bits is {average_bits!r}, but must be a number from {MIN_BITS} to {MAX_BITS}.")
    return int(average_bits)


def quantizers_with_bits(network: nn.Module, w_bits: int, a_bits: int) -> list[str]:
    """Return the names of the quantizers that have these bits; others got theirs from a coverage or an override."""
    weights = quantized_weights(network)
    return [n for n, q in named_quantizers(network) if q.spec.bits == (w_bits if n in weights else a_bits)]


def expected_errors(network: nn.Module, names: Collection[str], crops: Tensor) -> dict[str, ExpectedErrors]:
    """Return the error of the output that each quantizer makes with 2 to 8 bits, to second order.

    Weights and activations alike are taken to have the uniform grid with the smallest weighted squared error, see `squared_gradients`.

    Args:
        network: a network with quantizers, calibrated or not.
        names: of the quantizers to look at.
        crops: LR crops (N, 3, h, w) in 0..1, which go through the network one after the other.
    """
    weights, leaders = quantized_weights(network), quantizers_with_same_input(network)
    specs = {name: quantizer.spec for name, quantizer in named_quantizers(network)}
    chosen = [name for name in names if name not in leaders]
    generator = torch.Generator().manual_seed(0)
    samples: dict[str, list[Tensor]] = {}
    found: dict[str, ExpectedErrors] = {}
    for crop in crops.to(next(network.parameters()).device).split(1):
        for name, x, squared in squared_gradients(network, chosen, crop, generator):
            of_weight = name in weights
            found.setdefault(name, ExpectedErrors("weight" if of_weight else "activation", x.numel()))
            pair = torch.stack([x, squared])
            if not of_weight:
                places = torch.randint(x.numel(), (max(1, SAMPLES // len(crops)),), generator=generator)
                pair = pair.flatten(1).index_select(1, places.to(pair.device))
            samples.setdefault(name, []).append(pair.cpu())
    for name, errors in found.items():
        errors.same_input = [follower for follower, leader in leaders.items() if leader == name]
        for bits in CHOICES:
            if errors.role == "weight":
                errors.of_bits[bits] = _of_weight(samples[name], specs[name], 2**bits - 1) * errors.size
                continue
            best = _of_activation(samples[name], specs[name], 2**bits - 1)
            errors.of_bits[bits] = best.error * errors.size if best is not None else 0.0
            if best is not None:
                errors.bounds[bits] = best.lower, best.upper
    return found


def _of_weight(samples: list[Tensor], spec: QuantSpec, max_code: int) -> float:
    """Return the error for an element of a weight, of which all samples are the same but for the derivatives."""
    values, squared = samples[0][0], torch.stack([sample[1] for sample in samples]).mean(0)
    rows = (1, -1) if spec.channel_axis is None else (values.shape[0], -1)
    return error_of_rows(values.reshape(rows), squared.reshape(rows), max_code, spec.symmetric) / values.numel()


def _of_activation(samples: list[Tensor], spec: QuantSpec, max_code: int) -> WeightedBounds | None:
    """Return the best bounds, and the error for an element of an activation; None where there is one value."""
    values, squared = torch.cat(samples, 1)
    best = search_weighted(WeightedErrors(values, squared, max_code), symmetric=spec.symmetric)
    return best._replace(error=best.error / values.numel()) if best is not None else None


def choose_bits(errors: Mapping[str, ExpectedErrors], average: float) -> dict[str, int]:
    """Return the bits of all quantizers, those with the same input included, with the smallest sum of errors.

    The average holds for weights, each of which counts once, and for the elements of activations, each on its own.

    Raises:
        OptionsError: the average is out of reach; or scipy is missing.
    """
    bits: dict[str, int] = {}
    for role in ("weight", "activation"):
        of_role = {name: found for name, found in errors.items() if found.role == role}
        sizes = {name: found.size for name, found in of_role.items()}
        chosen = allocate_bits({name: found.of_bits for name, found in of_role.items()}, sizes, average)
        bits |= {other: chosen[name] for name, found in of_role.items() for other in (name, *found.same_input)}
    return bits


def as_overrides(errors: Mapping[str, ExpectedErrors], bits: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return chosen bits as the option `quantization:overrides`."""
    keys = {"weight": "w_bits", "activation": "a_bits"}
    return [
        {"match": name, keys[found.role]: bits[name]}
        for first, found in errors.items()
        for name in (first, *found.same_input)
    ]
