"""The pairs of bounds among which DOBI chooses, and which family of pairs suits the data."""

from typing import Literal

import torch
from torch import Tensor

from basicsr.quant.search.histogram import AlignedHistogram

Search = Literal["auto", "symmetric", "one_sided", "joint"]
OneSidedStep = Literal["K", "2K"]
Side = Literal["lower", "upper", "both"]

BULK_SHARE_OF_RANGE = 1 / 4


def bulk_side(histogram: AlignedHistogram) -> Side:
    """Return the end of the range at which the bulk of the data lies, `both` if at neither.

    The data are one-sided if half of them lie in the outermost quarter of the range, which is to say that the median
    is at most a quarter of the range away from minimum or maximum: then raising (lowering) the bound at that end by a
    few steps would clip the bulk. So it is with softmax maps, outputs of GELU and ReLU, and data with outliers on one
    side only; in bell-shaped data the median is near the middle. Counts of whole bins decide: a bin that holds the
    boundary counts to the inner part.
    """
    lowest, highest = histogram.position(histogram.lowest), histogram.position(histogram.highest)
    margin = (highest - lowest) * BULK_SHARE_OF_RANGE
    half = (int(histogram.counts.sum()) + 1) // 2
    if int(histogram.counts[: int(lowest + margin)].sum()) >= half:
        return "lower"
    if int(histogram.counts[int(highest - margin) + 1 :].sum()) >= half:
        return "upper"
    return "both"


def shrinkages(search: Search, side: Side, num_candidates: int, one_sided_step: OneSidedStep) -> tuple[Tensor, str]:
    """Return how far each candidate moves the bounds inward, and the name of the search for reports.

    With K candidates and the range R = maximum - minimum (2DQuant, arXiv 2406.06649, Algorithm 1):
    symmetric: both bounds by i R / 2K, i = 0..K-1; one-sided: the bound away from the bulk by i R / 2K (or i R / K),
    the other stays; joint: lower by i R / 2K and upper by j R / 2K, all K**2 pairs.

    Args:
        search: the family; `auto` is one-sided where the data are, else symmetric.
        side: what `bulk_side` says.
        num_candidates: K.
        one_sided_step: R / K or R / 2K.

    Returns:
        float64 (candidates, 2), shares of R from 0 to below 1 for lower and upper bound, and `symmetric`,
        `one_sided`, `one_sided_mirrored` (the lower bound moves) or `joint`.
    """
    steps = torch.arange(num_candidates, dtype=torch.float64) / (2 * num_candidates)
    if search == "joint":
        return torch.cartesian_prod(steps, steps), "joint"  # K*K,2
    if search == "symmetric" or (search == "auto" and side == "both"):
        return torch.stack([steps, steps], dim=1), "symmetric"
    if one_sided_step == "K":
        steps = 2 * steps
    still = torch.zeros_like(steps)
    if side == "upper":
        return torch.stack([steps, still], dim=1), "one_sided_mirrored"
    return torch.stack([still, steps], dim=1), "one_sided"
