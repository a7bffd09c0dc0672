"""Codes of few bits in the 8-bit integers that runtimes multiply.

A runtime computes with k * step, k a whole number, and pads convolutions with k = 0. The values of a quantizer with b bits are
lower + c * step for c = 0 .. 2**b - 1, where 0 need not be among them. Eight bits leave room for a finer grid, on which values and
zero lie almost, and often exactly: what is left is counted here, and for activations inside the picture compensated by the bias.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from basicsr.quant.integers.frozen import FrozenWeight

LARGEST_SUM = 2**15 - 1
"""Processors without VNNI instructions add two products in 16 bits; codes are kept so small that the sum always fits."""

_LARGEST_SMALL_CODE = 127  # of activations; weights may then be as large
_STEPS_TRIED = 192
_TIE = 1e-6  # of a step


@dataclass(frozen=True)
class ActivationContainer:
    """A grid on which the values of an activation quantizer and zero lie.

    Attributes:
        step: distance of neighbouring integers.
        zero_point: the integer that stands for zero, 0 to 255.
        shift: by how much the values on the grid are larger than those of the quantizer.
    """

    step: float
    zero_point: int
    shift: float


def largest_codes(activation_bits: int) -> tuple[int, int]:
    """Return the largest integers that stand for an activation and, in magnitude, for a weight multiplied with it."""
    activation = max(_LARGEST_SMALL_CODE, 2**activation_bits - 1)
    return activation, min(127, LARGEST_SUM // (2 * activation))


def activation_container(lower: float, upper: float, bits: int) -> ActivationContainer | None:
    """Return the grid with steps of a whole fraction of the quantizer's on which values and zero lie best.

    Args:
        lower: what code 0 stands for.
        upper: what code 2**bits - 1 stands for.
        bits: 2 to 8.

    Returns:
        None where zero is so far from the values that 8 bits do not reach both.
    """
    steps, limit = 2**bits - 1, largest_codes(bits)[0]
    step = (upper - lower) / steps
    best = None
    for fraction in range(1, limit // steps + 1):
        fine = step / fraction
        first = round(lower / fine)  # the integer of code 0, counted from zero
        if max(first, 0) + fraction * steps + max(-first - fraction * steps, 0) > limit:
            continue
        candidate = ActivationContainer(fine, max(-first, 0), first * fine - lower)
        if best is None or abs(candidate.shift) < abs(best.shift) - _TIE * step:
            best = candidate
    return best


@dataclass(frozen=True)
class WeightContainer:
    """A weight as integers with a step for each row (output channel).

    Attributes:
        codes: int8, in the shape of the weight.
        steps: float32, (rows,); a value is code * step.
        moved: largest distance of such a value from that of the quantizer, in steps of the quantizer.
    """

    codes: Tensor
    steps: Tensor
    moved: float


def weight_container(weight: FrozenWeight, largest: int) -> WeightContainer:
    """Return a frozen weight, rows first, as integers of at most `largest` in magnitude.

    Each row gets the step with the smallest error of a sum over the row's products. Errors of single weights add up like noise, their mean
    adds up n times, so that the mean square plus n times the squared mean is minimised. Symmetric weights are exact: their values
    are odd multiples of half a step.
    """
    spec, rows = weight.spec, len(weight.codes)
    codes = weight.codes.flatten(1).long()  # rows, n
    counts = torch.zeros(rows, 2**spec.bits, dtype=torch.float64).scatter_add_(
        1, codes, torch.ones_like(codes, dtype=torch.float64)
    )
    shares = counts / codes.shape[1]  # rows, levels
    lower, upper = (bound.double().expand(rows)[:, None] for bound in (weight.lower_bound, weight.upper_bound))
    own_step = (upper - lower) / spec.max_code  # rows, 1
    levels = lower + own_step * torch.arange(2**spec.bits)
    magnitude = (levels.abs() * (shares > 0)).amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    steps = _candidate_steps(own_step, magnitude, largest)  # rows, candidates
    errors = (levels[:, None] / steps[..., None]).round().clamp_(-largest, largest) * steps[..., None] - levels[:, None]
    shares = shares[:, None]
    score = (errors.square() * shares).sum(-1) + codes.shape[1] * (errors * shares).sum(-1).square()
    best = score.argmin(1, keepdim=True)
    step = steps.gather(1, best)
    integers = (levels / step).round().clamp_(-largest, largest)
    moved = ((integers * step - levels).abs() / own_step)[counts > 0].max()
    chosen = integers.gather(1, codes).to(torch.int8).reshape(weight.codes.shape)
    return WeightContainer(chosen, step[:, 0].float(), float(moved))


def _candidate_steps(own_step: Tensor, magnitude: Tensor, largest: int) -> Tensor:
    """Return steps that make the largest weight at most `largest`: whole fractions of its own step, and those close to the finest."""
    finest = magnitude / largest
    fractions = own_step / torch.arange(1, 2 * largest + 1)
    fractions = torch.where(fractions >= finest * (1 - _TIE), fractions, finest)
    return torch.cat([fractions, steps_from(finest)], dim=1)


def steps_from(finest: Tensor | float) -> Tensor:
    """Return steps to choose from, float64 (..., candidates): the finest, of the shape (..., 1) or a number, and coarser ones up to twice as wide."""
    return finest * torch.linspace(1, 2, _STEPS_TRIED, dtype=torch.float64)
