"""Losses between two images, in the forms of BasicSR.

`reduction: sum` adds up over the elements of a batch. With several processes or accumulation steps each part has a sum of its own,
and the parts are averaged; `mean` does not depend on the number of parts.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from basicsr.utils.registry import LOSS_REGISTRY

Reduction = Literal["mean", "sum"]


@LOSS_REGISTRY.register()
class L1Loss(torch.nn.Module):
    """Absolute difference of two image batches (N, C, H, W), mean or sum over all elements, times `loss_weight`."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar."""
        return self.loss_weight * F.l1_loss(output, target, reduction=self.reduction)


@LOSS_REGISTRY.register()
class MSELoss(torch.nn.Module):
    """Squared difference of two image batches (N, C, H, W), mean or sum over all elements, times `loss_weight`."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar."""
        return self.loss_weight * F.mse_loss(output, target, reduction=self.reduction)


@LOSS_REGISTRY.register()
class CharbonnierLoss(torch.nn.Module):
    """sqrt(difference^2 + eps) of two image batches (N, C, H, W), mean or sum over all elements, times `loss_weight`.

    A smooth absolute difference (LapSRN, arXiv 1704.03915, where eps is the square of an epsilon of 1e-3).

    Args:
        loss_weight: factor.
        reduction: over the elements of a batch.
        eps: added under the root, with pixels in 0..1; identical images have a loss of its root.
    """

    def __init__(
        self,
        *,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-12,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = reduction
        self.eps = eps

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar."""
        distances = ((output - target).square() + self.eps).sqrt()
        return self.loss_weight * (distances.mean() if self.reduction == "mean" else distances.sum())
