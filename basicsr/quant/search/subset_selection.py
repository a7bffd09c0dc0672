"""Which values of a universal set become the points of each channel: the best ones, or those that k-means comes near to."""

from typing import Literal

import torch
from torch import Tensor

from basicsr.quant.search.normalized_histogram import NormalizedHistogram

LLOYD_STEPS = 100
LLOYD_TOLERANCE = 1e-3
_PAIRS_AT_ONCE = 2**19  # a few channels, which stay in the cache


def select_exactly(
    histogram: NormalizedHistogram, num_points: int, allowed: Tensor, *, pin_zero: bool = False
) -> Tensor:
    """Return the points with the least sum of squared distances, by dynamic programming over the universal set.

    In the form of `NormalizedHistogram.squared_errors`, the error is a sum of one term for each two neighbouring points and one
    for the last point. So the best k points of which the last is j follow from the best k - 1 points of which the last is i < j.

    Args:
        histogram: of the normalised values.
        num_points: K, at most the number of allowed values.
        allowed: indices of the values of the universal set to choose from, ascending, (A,).
        pin_zero: 0, which must be allowed, is one of the points.

    Returns:
        Indices of values of the universal set, ascending and all different, (C, K).
    """
    universal = histogram.universal
    numerators = universal.numerators.to(allowed.device)[allowed]
    values = numerators.double() / universal.resolution
    gap = values[:, None] - values  # gap[j, i] = value j - value i
    midpoints = (numerators[:, None] + numerators + 2 * universal.resolution).flatten()
    forbidden = gap <= 0
    last_errors = histogram.errors_of_one(values)  # C, A
    first_errors = torch.zeros_like(values)
    if pin_zero:
        forbidden |= (values[:, None] > 0) & (values < 0)  # would pass over 0
        first_errors[values > 0] = torch.inf
        last_errors[:, values < 0] = torch.inf
    found = []
    at_once = max(1, _PAIRS_AT_ONCE // gap.numel())
    for shortfalls, last in zip(histogram.shortfalls().split(at_once), last_errors.split(at_once), strict=True):
        pairs = shortfalls.index_select(1, midpoints).view(-1, *gap.shape)  # some C, A, A
        pairs.mul_(gap.mul(-2)).masked_fill_(forbidden, torch.inf)
        found.append(_best_path(pairs, first_errors, last, num_points))
    return allowed[torch.cat(found)]


def _best_path(pairs: Tensor, first_errors: Tensor, last_errors: Tensor, num_points: int) -> Tensor:
    """Return the K indices, ascending, with the least sum of a first term, K - 1 terms of pairs and a last term.

    Args:
        pairs: (C, A, A); entry [j, i] for i before j, infinite where j cannot follow i.
        first_errors: (A,).
        last_errors: (C, A).
        num_points: K.
    """
    errors = [first_errors.expand_as(last_errors)]  # after k points, by the last of them
    sums = torch.empty_like(pairs)
    for _ in range(num_points - 1):
        errors.append(torch.add(pairs, errors[-1][:, None, :], out=sums).amin(dim=2))
    path = [(errors[-1] + last_errors).argmin(dim=1)]
    rows = torch.arange(len(pairs), device=pairs.device)
    for before in reversed(errors[:-1]):
        path.append((pairs[rows, path[-1]] + before).argmin(dim=1))
    return torch.stack(path[::-1], dim=1)


def select_by_kmeans(
    histogram: NormalizedHistogram,
    num_points: int,
    *,
    restarts: int,
    pin_zero: bool,
    keep: Literal["cluster_error", "quantization_error"],
    generator: torch.Generator,
) -> Tensor:
    """Return the values of the universal set nearest to the centres of k-means; some may be equal (arXiv 2305.05888).

    All channels and restarts advance together, on the bins of the histogram: a bin belongs as a whole to the centre that is
    nearest to its middle, and means are those of the values themselves. A centre without values stays where it is.

    Args:
        histogram: of the normalised values.
        num_points: number K of centres.
        restarts: how many times centres start from values drawn at random.
        pin_zero: one centre stays at 0.
        keep: the restart that is kept for a channel has the least squared distance of values to centres, or of values to the
            points near them.
        generator: on the CPU.

    Returns:
        Indices of values of the universal set, ascending, (C, K).
    """
    counts, sums = histogram.cumulative()
    centers = _random_values(histogram, counts, sums, (restarts, num_points), generator)
    if pin_zero:
        centers[..., 0] = 0
    centers, order = centers.sort(dim=-1)
    centers = _lloyd(histogram, counts, sums, centers, (order == 0) & pin_zero)
    values = histogram.universal.values.to(centers.device)
    chosen = torch.bucketize(centers, (values[1:] + values[:-1]) / 2)  # C, restarts, K
    if keep == "cluster_error":
        in_cluster, cluster_sum = _clusters(histogram, counts, sums, centers)
        errors = (centers * (centers * in_cluster - 2 * cluster_sum)).sum(
            dim=-1
        )  # less the sum of squares, equal for all
    else:
        errors = torch.stack([histogram.squared_errors(one) for one in chosen.unbind(1)], dim=1)
    return chosen[torch.arange(len(chosen), device=chosen.device), errors.argmin(dim=1)]


def _lloyd(histogram: NormalizedHistogram, counts: Tensor, sums: Tensor, centers: Tensor, pinned: Tensor) -> Tensor:
    """Return the centres (C, restarts, K) after Lloyd's iterations; those that are pinned stay, as do restarts at rest."""
    moving = torch.ones_like(centers[..., :1], dtype=torch.bool)
    for _ in range(LLOYD_STEPS):
        in_cluster, cluster_sum = _clusters(histogram, counts, sums, centers)
        stays = pinned | (in_cluster == 0) | ~moving
        moved = torch.where(stays, centers, cluster_sum / in_cluster.clamp_min(1))
        moving &= (moved - centers).abs().amax(dim=-1, keepdim=True) >= LLOYD_TOLERANCE
        centers = moved
        if not moving.any():
            break
    return centers


def _random_values(
    histogram: NormalizedHistogram, counts: Tensor, sums: Tensor, shape: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Return the means of the bins of values drawn at random, (C, *shape)."""
    uniform = torch.rand(len(counts), shape[0] * shape[1], dtype=torch.float64, generator=generator)
    ranks = (uniform.to(counts.device) * counts[:, -1:]).floor_()
    bins = torch.searchsorted(counts, ranks, right=True).sub_(1).clamp_(max=histogram.num_bins - 1)
    drawn = [(below.gather(1, bins + 1) - below.gather(1, bins)) for below in (sums, counts)]
    return (drawn[0] / drawn[1]).view(-1, *shape)


def _clusters(histogram: NormalizedHistogram, counts: Tensor, sums: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return number and sum of the values nearest to each centre, (C, restarts, K) each; centres are ascending."""
    edges = histogram.edge((centers[..., 1:] + centers[..., :-1]) / 2)
    edges = torch.nn.functional.pad(edges, (1, 0))
    edges = torch.nn.functional.pad(edges, (0, 1), value=histogram.num_bins)
    flat = edges.flatten(1)
    number, total = (below.gather(1, flat).view(edges.shape).diff(dim=-1) for below in (counts, sums))
    return number, total
