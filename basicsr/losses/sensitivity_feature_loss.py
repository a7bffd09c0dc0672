"""Distance of normalised features, in which layers that vary more count more."""

import torch

from basicsr.losses.distillation_loss import Features, unit_length
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class SensitivityFeatureLoss(torch.nn.Module):
    """Weighted sum of the distances d_i of `NormalizedFeatureLoss` (outlier-aware quantization, arXiv 2511.00682).

    The weights are softmax(sigma_i / mean sigma), with sigma_i the standard deviation of the teacher's feature i over the batch. They sum up
    to 1, and do not change when a network computes in 0..255 in place of 0..1.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Features, teacher: Features) -> torch.Tensor:
        """Return a scalar for features of any shape (N, ...) that have the same names."""
        distances, deviations = [], []
        for name, target in teacher.items():
            s, t = student[name].flatten(1), target.flatten(1)  # N, elements
            distances.append((unit_length(s) - unit_length(t)).norm(dim=1).mean())
            deviations.append(t.std())
        sigma = torch.stack(deviations)
        weights = (sigma / sigma.mean().clamp_min(torch.finfo(sigma.dtype).tiny)).softmax(dim=0)
        return self.loss_weight * (weights * torch.stack(distances)).sum()
