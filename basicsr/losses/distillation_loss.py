"""Losses between the intermediate features of a student and a teacher."""

from collections.abc import Mapping

import torch

from basicsr.utils.registry import LOSS_REGISTRY

Features = Mapping[str, torch.Tensor]


@LOSS_REGISTRY.register()
class NormalizedFeatureLoss(torch.nn.Module):
    """Distance of features that are first divided by their own L2 norm, sample by sample.

    For each layer i, with s and t the features of student and teacher for one sample,
    d_i = || s / ||s|| - t / ||t|| ||_2 (2DQuant, arXiv 2406.06649, section 3.3); the loss is
    loss_weight * sum_i mean_samples d_i, divided by the number of elements of a sample with `per_element`, as in the paper.
    Without that division it is of the order of 0.1, of the same size as relative errors; with it of the order of 1e-6.
    """

    def __init__(self, *, loss_weight: float = 1.0, per_element: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.per_element = per_element

    def forward(self, student: Features, teacher: Features) -> torch.Tensor:
        """Return a scalar for features of any shape (N, ...) that have the same names."""
        distances = []
        for name, target in teacher.items():
            s, t = student[name].flatten(1), target.flatten(1)  # N, elements
            distance = (unit_length(s) - unit_length(t)).norm(dim=1).mean()
            distances.append(distance / s.shape[1] if self.per_element else distance)
        return self.loss_weight * torch.stack(distances).sum()


def unit_length(x: torch.Tensor) -> torch.Tensor:
    """Divide each row (N, elements) by its L2 norm; a row of zeros stays zero."""
    return torch.nn.functional.normalize(x, dim=1)
