"""The best of the candidate bounds for many short rows at once, such as the channels of a weight: every candidate is tried on all of them."""

import torch
from torch import Tensor

from basicsr.quant.search.bound_search import SearchOptions, SearchResult
from basicsr.quant.search.candidates import BULK_SHARE_OF_RANGE, Side, shrinkages

_ROUNDING = 2.0**-46  # of the sum of squares, generously


def search_rows(rows: Tensor, options: SearchOptions) -> list[SearchResult]:
    """Return for each row what `BoundSearch` finds, by trying all candidates; `options.max_bins` plays no part.

    As there, the first candidate with the smallest error wins, and errors that differ by less than rounding can cause count as equal.

    Args:
        rows: finite values, (C, n).
        options: any search; with `joint` there are K**2 candidates.
    """
    x = rows.double()
    lowest, highest = (bound[:, None] for bound in x.aminmax(dim=1))  # C,1
    sides = _bulk_sides(x, lowest, highest)
    if options.symmetric_bounds:
        highest = torch.maximum(-lowest, highest)
        lowest = -highest
    above = x - lowest  # float64 resolves data far from zero better so
    results: dict[int, SearchResult] = {}
    for side in dict.fromkeys(sides):
        search = "symmetric" if options.symmetric_bounds else options.search
        shares, name = shrinkages(search, side, options.num_candidates, options.one_sided_step)
        chosen = [row for row, of_row in enumerate(sides) if of_row == side]
        winners, errors = _winners(above[chosen], (highest - lowest)[chosen], shares, options.max_code)
        for row, (lower, upper), error in zip(chosen, shares[winners].tolist(), errors, strict=True):
            low, high = float(lowest[row]), float(highest[row])
            results[row] = SearchResult(low + lower * (high - low), high - upper * (high - low), error, name)
    return [results[row] for row in range(len(rows))]


def _winners(above: Tensor, extent: Tensor, shares: Tensor, max_code: int) -> tuple[list[int], list[float]]:
    """Return the best candidate of each row and its error.

    Args:
        above: values above the lowest of their row, float64 (C, n).
        extent: ranges of the rows, (C, 1).
        shares: of the ranges by which candidates move the bounds inward, (candidates, 2).
        max_code: the largest code.
    """
    errors = []
    for from_lower, from_upper in shares.tolist():
        lower = from_lower * extent
        step = ((1 - from_lower - from_upper) * extent / max_code).clamp_min(torch.finfo(extent.dtype).tiny)
        rounded = (above - lower).div_(step).round_().clamp_(0, max_code).mul_(step).add_(lower)
        errors.append(rounded.sub_(above).square_().sum(1))
    of_all = torch.stack(errors, dim=1)  # C,candidates
    rounding = _ROUNDING * above.square().sum(1)
    good_enough = of_all <= (of_all.amin(1) + rounding)[:, None]
    winners = good_enough.to(torch.int8).argmax(1)  # the first one
    return winners.tolist(), of_all.gather(1, winners[:, None]).squeeze(1).tolist()


def _bulk_sides(x: Tensor, lowest: Tensor, highest: Tensor) -> list[Side]:
    """Return for each row what `candidates.bulk_side` says of a histogram, with the values themselves."""
    margin = BULK_SHARE_OF_RANGE * (highest - lowest)
    half = (x.shape[1] + 1) // 2
    lower = ((x < lowest + margin).sum(1) >= half).tolist()
    upper = ((x > highest - margin).sum(1) >= half).tolist()
    return ["lower" if low else "upper" if high else "both" for low, high in zip(lower, upper, strict=True)]
