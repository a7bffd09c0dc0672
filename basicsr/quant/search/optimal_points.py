"""The few points with the least sum of squared distances to the values of a histogram, exactly."""

import torch
from torch import Tensor

from basicsr.quant.search.histogram import AlignedHistogram


def optimal_points(histogram: AlignedHistogram, num_points: int) -> tuple[Tensor, float]:
    """Return the best points for the values of a histogram, and the mean of the squared distances to the nearest of them.

    The points are those of an optimal quantizer (Lloyd, IEEE Transactions on Information Theory 28, 1982; Max 1960), which
    iterations from some start only come near to. On a line the values of a point lie side by side, so that the best k groups of which the last ends with
    bin j follow from the best k - 1 groups that end with a bin i < j. A bin belongs to one group as a whole, and a point is the
    mean of the values of its group; both are exact but for what a bin's width hides.

    Args:
        histogram: of all values, of which there is one at least.
        num_points: K. Where fewer bins hold values, the rest of the points lie between bins, and some may be equal.

    Returns:
        float64 (K,) on the device of the histogram, ascending; and the error.
    """
    counts = histogram.counts.double()
    places = torch.arange(len(counts), dtype=torch.float64, device=counts.device)
    sums = histogram.fraction_sums + places * counts  # of positions, in bins
    # less the squares of fractions, which are equal for all groups
    squares = places * (2 * histogram.fraction_sums + places * counts)
    number, total, power = (torch.nn.functional.pad(one.cumsum(0), (1, 0)) for one in (counts, sums, squares))
    ends = _best_ends(_group_errors(number, total, power), num_points)
    in_group, of_group = number[ends].diff(), total[ends].diff()
    centres = (ends[:-1] + ends[1:]) / 2
    means = torch.where(in_group > 0, of_group / in_group.clamp_min(1), centres)
    spread = power[-1] + histogram.fraction_squares - (of_group.square() / in_group.clamp_min(1)).sum()
    width = histogram.width
    return (means + histogram.first_bin) * width, float(spread.clamp_min(0) / number[-1]) * width**2


def _group_errors(number: Tensor, total: Tensor, power: Tensor) -> Tensor:
    """Return the squared distances to their mean, of the values of the bins i to j - 1, as [j, i]; infinite for i > j.

    Args:
        number, total, power: (bins + 1,), of the bins below each edge: how many values, their sum, and the sum of their squares.
    """
    in_group, of_group = number[:, None] - number, total[:, None] - total
    errors = (power[:, None] - power) - of_group.square() / in_group.clamp_min(1)
    above = torch.ones_like(errors, dtype=torch.bool).triu(1)
    return errors.clamp_(min=0).masked_fill_(above, torch.inf)


def _best_ends(errors: Tensor, num_points: int) -> Tensor:
    """Return the edges of the groups with the least sum of errors: 0, then the end of each group, (K + 1,)."""
    first = torch.full_like(errors[0], torch.inf)
    first[0] = 0
    best = [first]  # after k groups, by the edge that the last one ends with
    for _ in range(num_points):
        best.append((errors + best[-1]).amin(dim=1))
    ends = [torch.full((1,), len(first) - 1, device=errors.device)]  # kept on the device, which nobody waits for
    for before in reversed(best[:-1]):
        ends.append((errors.index_select(0, ends[-1]) + before).argmin(dim=1))
    return torch.cat(ends[::-1])
