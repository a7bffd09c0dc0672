"""The two losses of 2DQuant exactly as its released code computes them, for comparison with its published checkpoints.

They differ from the paper: both are divided by a number of elements a second time, and the feature loss divides the
features of every sample by the norm of every sample of the batch.
"""

import torch
import torch.nn.functional as F

from basicsr.losses.distillation_loss import Features
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class Released2DQuantPixelLoss(torch.nn.Module):
    """Mean absolute difference, divided once more by the number of elements C * H * W of one sample."""

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar for image batches (N, C, H, W)."""
        return self.loss_weight * F.l1_loss(output, target) / output[0].numel()


@LOSS_REGISTRY.register()
class Released2DQuantFeatureLoss(torch.nn.Module):
    """Squared difference of features divided by detached norms, broadcast over all pairs of samples.

    With s_b, t_b the student's and the teacher's features (M elements) of sample b, the released code computes the mean
    over all pairs (a, b) and all elements of (s_b / |s_a| - t_b / |t_a|)^2, divided by their number N * N * M again. The
    N * N * M tensor is not built here: with d = s - t and h_a = 1/|s_a| - 1/|t_a| each pair sums up to
    |d_b|^2 / |s_a|^2 + 2 <d_b, t_b> h_a / |s_a| + |t_b|^2 h_a^2.
    """

    def __init__(self, *, loss_weight: float = 5.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Features, teacher: Features) -> torch.Tensor:
        """Return a scalar for features of any shape (N, ...) that have the same names."""
        losses = []
        for name, target in teacher.items():
            s, t = student[name].flatten(1), target.flatten(1)  # N, M
            inverse_s, inverse_t = 1 / s.detach().norm(dim=1), 1 / t.norm(dim=1)
            h = inverse_s - inverse_t
            d = s - t
            pairs = (
                (d * d).sum() * (inverse_s * inverse_s).sum()
                + 2 * (d * t).sum() * (h * inverse_s).sum()
                + (t * t).sum() * (h * h).sum()
            )
            losses.append(pairs / (len(s) * s.numel()) ** 2)
        return self.loss_weight * torch.stack(losses).sum()
