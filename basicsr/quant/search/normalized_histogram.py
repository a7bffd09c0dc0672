"""What the selection of points needs to know about normalised values: counts and sums between all midpoints of a universal set."""

import torch
from torch import Tensor

from basicsr.quant.kernels.counting import count_normalized
from basicsr.quant.ops.universal_set import UniversalSet

_MIN_BINS = 2**12


class NormalizedHistogram:
    """Counts and sums of values from -1 to 1 in equal bins, for each channel.

    The midpoint of any two values of the universal set is an edge between two bins. So the counts and sums hold, without loss, the
    sum of squared distances to the nearest point for every choice of points, in memory that does not depend on the amount of data.

    Args:
        universal: the universal set.
        num_channels: number of channels.
        device: where the data come from.

    Attributes:
        counts: int64 (C, bins).
        sums: float64 (C, bins); sums of values.
        squares: float64 (C,); sums of squares over all bins.
    """

    def __init__(self, universal: UniversalSet, num_channels: int, device: torch.device) -> None:
        self.universal = universal
        self._bins_per_step = -(-_MIN_BINS // (4 * universal.resolution))  # of a step of 1 / (2 resolution)
        self.num_bins = 4 * universal.resolution * self._bins_per_step
        self.counts = torch.zeros(num_channels, self.num_bins, dtype=torch.int64, device=device)
        self.sums = torch.zeros(num_channels, self.num_bins, dtype=torch.float64, device=device)
        self.squares = torch.zeros(num_channels, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Count float32 values from -1 to 1, (N, C, elements)."""
        if count_normalized(rows, self.counts, self.sums, self.squares):
            return
        values = rows.transpose(0, 1).flatten(1)  # N, C, elements -> C, N * elements
        bins = values.mul(self.num_bins // 2).floor_().long().add_(self.num_bins // 2).clamp_(0, self.num_bins - 1)
        self.counts.scatter_add_(1, bins, torch.ones_like(bins))
        self.sums.scatter_add_(1, bins, values.double())
        self.squares += torch.linalg.vector_norm(values, dim=1, dtype=torch.float64).square_()

    def cumulative(self) -> tuple[Tensor, Tensor]:
        """Return how many values lie below each edge between bins, and their sum: float64 (C, bins + 1) each."""
        return _sums_below(self.counts).double(), _sums_below(self.sums)

    def edge(self, positions: Tensor) -> Tensor:
        """Return the index of the edge nearest to positions from -1 to 1."""
        return positions.add(1).mul_(self.num_bins / 2).round_().long().clamp_(0, self.num_bins)

    def shortfalls(self) -> Tensor:
        """Return, for the midpoints m_i = i / (2 resolution) - 1 of the set, the sums of max(0, m_i - y) over the values y.

        Returns:
            float64 (C, 4 * resolution + 1). The midpoint of the values with the numerators a and b has the index a + b + 2 * resolution.
        """
        counts, sums = (below[:, :: self._bins_per_step] for below in self.cumulative())
        midpoints = torch.arange(counts.shape[1], dtype=torch.float64, device=counts.device)
        return (midpoints / (2 * self.universal.resolution) - 1) * counts - sums

    def squared_errors(self, chosen: Tensor) -> Tensor:
        """Return the sums of squared distances to the nearest of the chosen points.

        With the points p_1 <= .. <= p_K, the midpoints m_k = (p_k + p_k+1) / 2 and the shortfalls G, the sum over the values y is
        sum (y - p_K)^2 - 2 sum_k (p_k+1 - p_k) G(m_k): going down from p_k+1 to p_k saves 2 (p_k+1 - p_k) (m_k - y) for y below m_k.

        Args:
            chosen: indices of values of the universal set, ascending, (C, K).

        Returns:
            float64 (C,).
        """
        numerators = self.universal.numerators.to(chosen.device)[chosen]
        points = numerators.double() / self.universal.resolution
        between = numerators[:, 1:] + numerators[:, :-1] + 2 * self.universal.resolution
        saved = 2 * points.diff(dim=1) * self.shortfalls().gather(1, between)
        return self.errors_of_one(points[:, -1:]).squeeze(1) - saved.sum(dim=1)

    def errors_of_one(self, points: Tensor) -> Tensor:
        """Return the sums of squared distances of all values to single points: float64 (C, P) for points (P,) or (C, P)."""
        counts, sums = self.counts.sum(dim=1, keepdim=True), self.sums.sum(dim=1, keepdim=True)
        return self.squares[:, None] + points * (points * counts - 2 * sums)


def _sums_below(bins: Tensor) -> Tensor:
    return torch.nn.functional.pad(bins.cumsum(dim=1), (1, 0))
