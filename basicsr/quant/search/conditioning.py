"""Weights with singular values that lie nearer together, while a layer makes nearly the same of its inputs (CondiQuant, arXiv 2502.15478).

What a quantizer does to the input of a layer comes out of it multiplied by the weight. Directions that inputs hardly have leave the weight
free there, and trained weights are badly conditioned. With x the inputs of a layer, H = E[x x'] over the largest eigenvalue of that matrix, and
s_i the singular values of W, whose mean is s, what is made small is

    1/2 tr((W - W0) H (W - W0)') + strength / 2 sum_i (s_i - s)^2

by proximal gradient descent: a step of length 1 along the gradient of the first term, then the exact minimum of the second term and half of the
squared distance to where the step led. Singular vectors stay in it, and each singular value goes to (s_i + strength s) / (1 + strength).
"""

import torch
from torch import Tensor


def conditioned_weight(weight: Tensor, second: Tensor, strength: float, steps: int) -> Tensor:
    """Return a weight whose singular values lie nearer together.

    Args:
        weight: (rows, k).
        second: E[x x'], (k, k), float64, not all 0.
        strength: what the spread of singular values counts, in squares of the largest eigenvalue's share; above 0.
        steps: of proximal gradient descent.

    Returns:
        (rows, k), float64.
    """
    curvature = second / torch.linalg.eigvalsh(second)[-1]
    before = weight.double()
    found = before
    for _ in range(steps):
        found = found - (found - before) @ curvature
        left, values, right = torch.linalg.svd(found, full_matrices=False)
        values = (values + strength * values.mean()) / (1 + strength)
        found = (left * values) @ right
    return found


def condition_number(weight: Tensor) -> float:
    """Return the largest singular value of a weight (rows, k) over the smallest one; infinite for a singular weight."""
    values = torch.linalg.svdvals(weight.double())
    return float(values[0] / values[-1])
