"""Bounds of an activation by what they do to the output of its module, for activations whose own squared error misleads.

The rows of a softmax map sum to 1 and hold mostly small values. On a coarse grid that reaches to the largest value nearly all of these
round to the same side, and the errors of a row add up in its product with V instead of cancelling. A grid that clips the few large
values has more squared error itself, and an output that is several times nearer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from basicsr.quant.observe.capture import bypass_quantizers, tap_activations
from basicsr.quant.observe.module_calls import Arguments, ModuleCall, call_module
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

SAMPLE_ELEMENTS = 2**19
"""About as many elements of the inputs of a module are kept for the search."""
_WIDTHS = tuple(2 ** (k / 4) for k in range(-16, 3))
"""Factors of the width of the range that are tried first."""
_SHIFTS = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
"""By how many quantization steps the lower bound is moved with each of them: it matters where in its step the bulk of one-sided data falls."""
_SMALL_MOVES = (-3, -2, -1, 1, 2, 3)
_UNITS = (1 / 16, 1 / 64)
"""Of small moves, round by round: in octaves of the width, or in quantization steps."""

Range = tuple[Tensor, Tensor]


class ArgumentSample:
    """Every n-th entry, along axis 0, of what a module is called with; the same however the crops are cut into batches.

    Args:
        num_crops: how many crops the network will see in all.
    """

    def __init__(self, num_crops: int) -> None:
        self._num_crops = num_crops
        self._stride = 0
        self._entries_seen = 0
        self._tensors: dict[int | str, list[Tensor]] = {}
        self._constants: Arguments = {}

    def add(self, call: ModuleCall, num_crops: int) -> None:
        """Take what is kept of one call.

        Args:
            call: its tensors have the same number of entries along axis 0.
            num_crops: how many crops the network has been given in this pass.

        Raises:
            QuantizationError: the tensors differ along axis 0, or there are none.
        """
        lengths = {len(value) for value in call.tensors.values()}
        if len(lengths) != 1:
            raise QuantizationError(
                "Bounds can be chosen by the output only of a module all of whose inputs have the same number of entries along "
                f"axis 0; these have {sorted(lengths)}. Take the module out of 'calibration:by_output'."
            )
        if not self._stride:
            elements = sum(value.numel() for value in call.tensors.values()) * self._num_crops / num_crops
            self._stride = math.ceil(elements / SAMPLE_ELEMENTS)
        first = -self._entries_seen % self._stride
        self._entries_seen += lengths.pop()
        for key, value in call.tensors.items():
            self._tensors.setdefault(key, []).append(value[first :: self._stride].detach().clone())
        self._constants = call.constants

    def arguments(self) -> Arguments:
        """Return what was kept, as the arguments of a single call."""
        return {**self._constants, **{key: torch.cat(parts) for key, parts in self._tensors.items()}}


@dataclass(frozen=True)
class OutputSearchResult:
    """What `search_by_output` found.

    Attributes:
        lower_bound: shape ().
        upper_bound: shape ().
        error_before: mean squared error of the output of the module with the bounds that the quantizer had.
        error: that with the bounds found, at most as large.
        mean_squared_error: mean over the sample of (x - quantized x)**2 with the bounds found.
    """

    lower_bound: Tensor
    upper_bound: Tensor
    error_before: float
    error: float
    mean_squared_error: float


@torch.no_grad()
def search_by_output(module: nn.Module, slot: str, arguments: Arguments) -> OutputSearchResult:
    """Move the bounds of one quantizer to where the output of its module has the smallest squared error found.

    Tried are ranges of many widths that begin near the lower bound or have the same middle, then small moves of either bound and of
    both from the best of these. A symmetric quantizer has only widths to try. All other quantizers of the module are bypassed, so that
    what is measured is the error of this one alone.

    Args:
        module: holds the quantizer; calibrated.
        slot: name of the quantizer in the module; it has one pair of bounds.
        arguments: full-precision inputs of the module.
    """
    quantizer = module.get_submodule(slot)
    assert isinstance(quantizer, AffineQuantizer)  # others are refused where the names are chosen
    with bypass_quantizers(module):
        target = call_module(module, arguments)
        quantizer.bypass = False

        def error_with(bounds: Range) -> float:
            quantizer.set_bounds(*bounds)
            return float((call_module(module, arguments) - target).square().mean())

        lower, upper = quantizer.bounds()
        best = lower.clone(), upper.clone()
        error = error_before = error_with(best)
        for candidates in _stages(quantizer.spec):
            for candidate in candidates(*best):
                found = error_with(candidate)
                if found < error:
                    best, error = candidate, found
        quantizer.set_bounds(*best)
        with tap_activations(module) as activations:
            call_module(module, arguments)
        x, quantized = activations[slot]
    return OutputSearchResult(*best, error_before, error, float((quantized - x).square().mean()))


def _stages(spec: QuantSpec) -> Iterator[Callable[[Tensor, Tensor], Iterator[Range]]]:
    """Yield what makes candidates of the best range so far, stage by stage."""
    if spec.symmetric:
        yield partial(_scaled, factors=_WIDTHS)
    else:
        yield partial(_widths_and_shifts, max_code=spec.max_code)
    for unit in _UNITS:
        factors = tuple(2 ** (move * unit) for move in _SMALL_MOVES)
        if spec.symmetric:
            yield partial(_scaled, factors=factors)
        else:
            yield partial(_upper, factors=factors)
            yield partial(_lower, factors=factors)
            yield partial(_both, shares=tuple(move * unit / spec.max_code for move in _SMALL_MOVES))


def _upper(lower: Tensor, upper: Tensor, factors: Sequence[float]) -> Iterator[Range]:
    for factor in factors:
        yield lower, lower + (upper - lower) * factor


def _lower(lower: Tensor, upper: Tensor, factors: Sequence[float]) -> Iterator[Range]:
    for factor in factors:
        yield upper - (upper - lower) * factor, upper


def _both(lower: Tensor, upper: Tensor, shares: Sequence[float]) -> Iterator[Range]:
    for share in shares:
        yield lower + share * (upper - lower), upper + share * (upper - lower)


def _scaled(lower: Tensor, upper: Tensor, factors: Sequence[float]) -> Iterator[Range]:
    middle = (lower + upper) / 2
    for factor in factors:
        yield middle + (lower - middle) * factor, middle + (upper - middle) * factor


def _widths_and_shifts(lower: Tensor, upper: Tensor, max_code: int) -> Iterator[Range]:
    yield from _scaled(lower, upper, _WIDTHS)
    for factor in _WIDTHS:
        width = (upper - lower) * factor
        for shift in _SHIFTS:
            begin = lower + width * (shift / max_code)
            yield begin, begin + width
