"""The mean distance of activations from the values that their quantizers give."""

from collections.abc import Mapping

import torch
from torch import Tensor

from basicsr.losses.base import Loss
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class QuantizationErrorLoss(Loss):
    """loss_weight * sum_i mean |X_i - q(X_i)| over all activation quantizers i, as in the released code of FQSR (ACM MM 2021).

    q(X) passes gradients straight through, so that inside the bounds the loss trains steps and bounds alone, and outside also pulls
    the activations in.

    Args:
        loss_weight: 0.3 in the released code.
    """

    def __init__(self, *, loss_weight: float = 0.3) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Return a scalar for inputs and outputs of quantizers, each pair of one shape, by name."""
        return self.loss_weight * torch.stack([(x - quantized).abs().mean() for x, quantized in pairs.values()]).sum()
