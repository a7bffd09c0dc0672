"""How far activations are from the values that their quantizers can give."""

from collections.abc import Mapping
from typing import Literal

import torch

from basicsr.utils.registry import LOSS_REGISTRY

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@LOSS_REGISTRY.register()
class MismatchLoss(torch.nn.Module):
    """Distance of activations to their quantized values, L_M = loss_weight * sum_i ||X_i - q(X_i)||_2 (ODM, arXiv 2307.13337v2).

    The sum runs over all activation quantizers, the norm over all elements of a batch. With several processes or
    accumulation steps each part has a norm of its own, and the parts are averaged.

    Args:
        loss_weight: the lambda_M of the paper: 1e-5, and 1e-6 for RDN.
        detach_quantized: take q(X) for a constant, so that every activation is pulled to the nearest grid point. By default
            q(X) passes gradients straight through, so that X - q(X) has none inside the bounds and only what lies
            outside is pulled in: the distance to the range. The paper does not say which.
        reduction: `sum` is the norm as written; `mean` divides each by the square root of its number of elements, which
            asks for another weight. The weight of the paper makes sense with `sum`.
    """

    def __init__(
        self, *, loss_weight: float = 1e-5, detach_quantized: bool = False, reduction: Literal["sum", "mean"] = "sum"
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.detach_quantized = detach_quantized
        self.reduction = reduction

    def forward(self, pairs: Pairs) -> torch.Tensor:
        """Return a scalar for inputs and outputs of quantizers, each pair of one shape, by name."""
        return self.loss_weight * torch.stack(list(self.of_layers(pairs).values())).sum()

    def of_layers(self, pairs: Pairs) -> dict[str, torch.Tensor]:
        """Return the norm of each pair, without the weight."""
        return {name: self._norm(*pair) for name, pair in pairs.items()}

    def _norm(self, x: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        difference = x - (quantized.detach() if self.detach_quantized else quantized)
        norm = torch.linalg.vector_norm(difference, dtype=torch.float32)  # its gradient at 0 is 0
        return norm / difference.numel() ** 0.5 if self.reduction == "mean" else norm
