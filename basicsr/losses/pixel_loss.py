"""Losses between two images."""

import torch
import torch.nn.functional as F

from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class L1Loss(torch.nn.Module):
    """Mean absolute difference of two image batches (N, C, H, W), times `loss_weight`."""

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar."""
        return self.loss_weight * F.l1_loss(output, target)


@LOSS_REGISTRY.register()
class MSELoss(torch.nn.Module):
    """Mean squared difference of two image batches (N, C, H, W), times `loss_weight`."""

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar."""
        return self.loss_weight * F.mse_loss(output, target)
