"""Bounds with the smallest weighted squared error, for values of which some matter more than others.

Sorted once, values need three running sums, of w, w x and w x**2, for the error of any pair of bounds: each level of the grid gets
the values between two thresholds, which a binary search finds.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST_EXPONENT = -3.0
"""The first step is this power of 10 of the way to the end of the data: outliers may be a thousand times as far out as what matters."""
_STEPS = 24
_ROUNDS, _SIDE, _FIRST_WINDOW, _NARROWING = 4, 9, 0.2, 2.5
_NARROWEST = 1e-9  # of the range of the data
_PAIRS_AT_ONCE = 256
_SHRINKAGES = 16


class WeightedBounds(NamedTuple):
    """Bounds, and the sum of weighted squared errors with them."""

    lower: float
    upper: float
    error: float


class WeightedErrors:
    """The sum of w (x - quantized x)**2 for pairs of bounds, exact but for float64 rounding.

    Args:
        values: x, (n,), finite.
        weights: w, (n,), at least 0.
        max_code: the largest code N of the grid lower + k (upper - lower) / N.
    """

    def __init__(self, values: Tensor, weights: Tensor, max_code: int) -> None:
        self._values, order = values.double().sort()
        self._max_code = max_code
        w = weights.double()[order]
        terms = torch.stack([w, w * self._values, w * self._values.square()])
        self._sums = torch.nn.functional.pad(terms.cumsum(1), (1, 0))  # 3,n+1
        self.total_weight = float(self._sums[0, -1])

    @property
    def lowest(self) -> float:
        """The smallest value."""
        return float(self._values[0])

    @property
    def highest(self) -> float:
        """The largest value."""
        return float(self._values[-1])

    @property
    def middle(self) -> float:
        """The weighted median: one half of all weight lies on each side."""
        place = torch.searchsorted(self._sums[0], self.total_weight / 2)
        return float(self._values[(int(place) - 1) if place > 0 else 0])

    def __call__(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return the sums of weighted squared errors, (candidates,), for float64 bounds (candidates,)."""
        parts = zip(lower.split(_PAIRS_AT_ONCE), upper.split(_PAIRS_AT_ONCE), strict=True)
        return torch.cat([self._errors(low, high) for low, high in parts])

    def _errors(self, lower: Tensor, upper: Tensor) -> Tensor:
        levels = lower[:, None] + (upper - lower)[:, None] * torch.linspace(0, 1, self._max_code + 1).double()
        thresholds = (levels[:, 1:] + levels[:, :-1]) / 2
        cuts = torch.searchsorted(self._values, thresholds)  # C,N
        cuts = torch.nn.functional.pad(torch.nn.functional.pad(cuts, (1, 0)), (0, 1), value=len(self._values))
        of_level = self._sums[:, cuts].diff(dim=-1)  # 3,C,N+1
        return (of_level[2] - 2 * levels * of_level[1] + levels.square() * of_level[0]).sum(1)


def search_weighted(errors: WeightedErrors, *, symmetric: bool = False) -> WeightedBounds | None:
    """Return the bounds inside the range of the values with the smallest weighted squared error.

    Both bounds move on their own, in steps that grow from the weighted median outwards, since outliers that do not matter may stretch the
    range a thousandfold. Finer and finer grids about the best pair follow.

    Args:
        errors: of the values and their weights.
        symmetric: the bounds are -u and u.

    Returns:
        None where there is nothing to choose: all weights are 0, or all values are equal.
    """
    lowest, highest, middle = errors.lowest, errors.highest, errors.middle
    if symmetric:
        highest = max(-lowest, highest)
        lowest, middle = -highest, 0.0
    if not errors.total_weight > 0 or not highest > lowest:
        return None
    shares = torch.cat([torch.zeros(1), torch.logspace(_SMALLEST_EXPONENT, 0, _STEPS)]).double()
    best = _best(errors, middle - (middle - lowest) * shares, middle + (highest - middle) * shares, symmetric)
    window = _FIRST_WINDOW
    for _ in range(_ROUNDS):
        offsets = torch.linspace(-window, window, _SIDE).double() * (best.upper - best.lower)
        lower, upper = (bound + offsets for bound in best[:2])
        best = min(best, _best(errors, lower.clamp(lowest), upper.clamp(max=highest), symmetric), key=_error)
        window /= _NARROWING
    return best


def _best(errors: WeightedErrors, lower: Tensor, upper: Tensor, symmetric: bool) -> WeightedBounds:
    """Return the best pair, the first of equals, among all of lower and upper bounds, or among -u and u for all upper ones."""
    pairs = torch.stack([-upper, upper], 1) if symmetric else torch.cartesian_prod(lower, upper)
    narrowest = _NARROWEST * (errors.highest - errors.lowest)
    pairs = pairs[pairs[:, 1] - pairs[:, 0] > narrowest]
    found = errors(pairs[:, 0], pairs[:, 1])
    winner = int(found.argmin())
    return WeightedBounds(float(pairs[winner, 0]), float(pairs[winner, 1]), float(found[winner]))


def _error(found: WeightedBounds) -> float:
    return found.error


def error_of_rows(values: Tensor, weights: Tensor, max_code: int, symmetric: bool = False) -> float:
    """Return the sum of weighted squared errors where each row has the best of a few pairs of bounds, for many short rows.

    Args:
        values: (rows, n).
        weights: (rows, n), at least 0.
        max_code: the largest code.
        symmetric: the bounds are -u and u.
    """
    x, w = values.double(), weights.double()
    lowest, highest = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    if symmetric:
        highest = torch.maximum(-lowest, highest)
        lowest = -highest
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for share in torch.linspace(0, 0.6, _SHRINKAGES).tolist():
        inward = share / 2 * (highest - lowest)
        lower, step = lowest + inward, ((highest - lowest - 2 * inward) / max_code).clamp_min(torch.finfo(x.dtype).tiny)
        rounded = ((x - lower) / step).round().clamp(0, max_code) * step + lower
        best = torch.minimum(best, (w * (x - rounded).square()).sum(1))
    return float(best.sum())
