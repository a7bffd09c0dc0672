"""Weights of a layer that fit its quantized inputs, by least squares, and their rounding with compensated errors.

A layer multiplies its input x (k numbers) by a weight W (rows, k). Quantized layers before it, and the quantizer of its own input,
turn x into z. What is asked for is the weight Q on a grid with the smallest mean of || Q z - W x ||^2 over calibration data, both
x and z less their means where a bias takes care of these. With H = E[z z'] and G = E[x z'] that happens in two steps.

1. Without the grid the answer is W G H^-1 (asymmetric calibration, as in GPTAQ, arXiv 2504.02692).
2. The columns are then rounded one after the other, and what a rounding does to the output is taken back by the columns
   that are still to come, in closed form (GPTQ, arXiv 2210.17323, algorithm 1).
"""

import torch
from torch import Tensor

from basicsr.quant.spec import QuantizationError


class InputMoments:
    """Means and second moments of what a weight is multiplied with, in full precision (x) and quantized (z).

    Sums are float64, of float32 products of one batch each. Both inputs are taken less the means of the first batch, so that inputs
    that hardly vary about a large value have exact moments, too.

    Args:
        features: k, the number of inputs.
    """

    def __init__(self, features: int) -> None:
        self._count = 0
        self._shifts: tuple[Tensor, Tensor] | None = None
        self._of_x, self._of_z = (torch.zeros(features, dtype=torch.float64) for _ in range(2))
        self._xz, self._zz = (torch.zeros(features, features, dtype=torch.float64) for _ in range(2))

    def update(self, x: Tensor, z: Tensor) -> None:
        """Take both inputs, (positions, k), of the same positions."""
        if self._shifts is None:
            self._shifts = x.mean(0), z.mean(0)
        x, z = x - self._shifts[0], z - self._shifts[1]
        self._count += len(x)
        self._of_x += x.sum(0).cpu()
        self._of_z += z.sum(0).cpu()
        self._xz += (x.T @ z).cpu()
        self._zz += (z.T @ z).cpu()

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Means of x and z, (k,), float64."""
        assert self._shifts is not None  # there was a batch
        shifts = (shift.double().cpu() for shift in self._shifts)
        sums = (self._of_x, self._of_z)
        of_x, of_z = (shift + total / self._count for shift, total in zip(shifts, sums, strict=True))
        return of_x, of_z

    @property
    def vary(self) -> bool:
        """Whether z varies by more than rounding, so that a weight can be fitted to it at all; also where it is not finite."""
        variance = self._covariances()[1].diagonal().mean()
        return not bool(variance <= 1e-9 * self.means[1].square().mean())

    def second(self, damping: float, *, central: bool = True) -> tuple[Tensor, Tensor]:
        """Return E[x z'] and E[z z'], (k, k), float64, with `damping` times the mean of the latter's diagonal added to both diagonals.

        So directions in which z hardly varies keep their weights.

        Args:
            damping: above 0.
            central: take both inputs less their means, for a layer whose bias makes up for these.

        Raises:
            QuantizationError: the inputs are not finite.
        """
        xz, zz = self._covariances()
        if not central:
            x, z = self.means
            xz, zz = xz + torch.outer(x, z), zz + torch.outer(z, z)
        added = damping * zz.diagonal().mean()
        if not bool(added.isfinite()):
            raise QuantizationError("Its inputs are not finite.")
        ridge = added * torch.eye(len(zz), dtype=zz.dtype)
        return xz + ridge, zz + ridge

    def _covariances(self) -> tuple[Tensor, Tensor]:
        x, z = self._of_x / self._count, self._of_z / self._count
        return self._xz / self._count - torch.outer(x, z), self._zz / self._count - torch.outer(z, z)


def fitted_weight(weight: Tensor, xz: Tensor, zz: Tensor) -> Tensor:
    """Return W G H^-1, the weight (rows, k) that makes of z what is nearest to W x; float64."""
    return torch.linalg.solve(zz, (weight.double() @ xz).T).T


def compensated_rounding(weight: Tensor, zz: Tensor, lower: Tensor, upper: Tensor, max_code: int) -> Tensor:
    """Return the weight with all values on a grid, those that matter most rounded first, and the errors taken back by the others.

    Args:
        weight: (rows, k).
        zz: H, (k, k), float64, positive definite.
        lower: what code 0 stands for in each row, (rows, 1).
        upper: what code `max_code` stands for, (rows, 1).
        max_code: the largest code.

    Returns:
        (rows, k), float64.
    """
    order = zz.diagonal().argsort(descending=True)
    left = weight.double()[:, order].clone()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(zz[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    step = (upper - lower).double() / max_code
    result = torch.empty_like(left)
    for i in range(left.shape[1]):
        column = left[:, i : i + 1]
        values = ((column - lower) / step).round().clamp(0, max_code) * step + lower
        result[:, order[i]] = values[:, 0]
        left[:, i + 1 :] -= (column - values) / factor[i, i] * factor[i, i + 1 :]
    return result
