"""Loss between the spatial attention of a student and of a teacher."""

from typing import Literal

import torch

from basicsr.losses.distillation_loss import Features, unit_length
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class AttentionTransferLoss(torch.nn.Module):
    """Distance of attention maps: where in the image a layer is active, whatever the channel (arXiv 1612.03928, eq. 2).

    The attention map of a feature is the mean of its squares over the channels, as a vector q over all positions of a sample;
    student and teacher give q_S and q_T. For `mean_square`, the distance of a layer is the mean over samples and positions of
    the squared difference of q_S / ||q_S|| and q_T / ||q_T||, as in the code of both that paper and PTQ4SR (Tu et al., CVPR 2023);
    for `norm`, it is the mean over the samples of the length of this difference, as the equation has it. A length of 0.02 in
    48 x 48 positions is a mean square of 1.7e-7. The loss is loss_weight times the mean over the layers.
    """

    def __init__(self, *, loss_weight: float = 1.0, distance: Literal["mean_square", "norm"] = "mean_square") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.distance = distance

    def forward(self, student: Features, teacher: Features) -> torch.Tensor:
        """Return a scalar for features (N, C, H, W) or tokens (N, L, C) that have the same names.

        Raises:
            OptionsError: a feature has another number of axes.
        """
        distances = []
        for name, target in teacher.items():
            difference = attention_map(student[name], name) - attention_map(target, name)  # N, positions
            if self.distance == "norm":
                distances.append(difference.norm(dim=1).mean())
            else:
                distances.append(difference.square().mean())
        return self.loss_weight * torch.stack(distances).mean()


def attention_map(feature: torch.Tensor, name: str) -> torch.Tensor:
    """Return the mean of squares over the channels as vectors of unit length.

    Args:
        feature: (N, C, H, W), or tokens (N, L, C).
        name: of the layer that gave it, for messages.

    Returns:
        (N, H * W) or (N, L); zeros for a sample that is zero everywhere.

    Raises:
        OptionsError: another number of axes.
    """
    if feature.dim() not in (3, 4):
        raise OptionsError(
            f"The feature layer '{name}' gives a tensor of the shape {tuple(feature.shape)}; AttentionTransferLoss needs "
            "N, C, H, W or tokens N, L, C. Name other layers in 'train:feature_layers'."
        )
    channel_axis = 1 if feature.dim() == 4 else 2
    return unit_length(feature.square().mean(dim=channel_axis).flatten(1))
