"""How far two gradients agree, for rules and diagnostics."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

LayerNames = Sequence[str]
Extent = Literal["network", "layer", "tensor"]


def cosines(first: Sequence[Tensor], second: Sequence[Tensor], layers: LayerNames, extent: Extent) -> Tensor:
    """Return the cosine between two gradients, in -1..1; 0 where one of them is zero.

    Args:
        first: a tensor for each parameter.
        second: as `first`.
        layers: name of the layer that each parameter belongs to.
        extent: over what the inner product runs: all parameters, those of one layer, or one parameter.

    Returns:
        float32, (P,): for each of the P parameters the cosine over that extent.
    """
    products = torch.stack(
        [torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()]) for a, b in zip(first, second, strict=True)]
    ).double()  # P,3
    group = _groups(layers, extent).to(products.device, non_blocking=True)  # P
    same_group = (group[:, None] == group).double()  # P,P; a product of matrices adds in a fixed order on every device
    product, first_square, second_square = (same_group @ products).unbind(1)
    scale = (first_square * second_square).sqrt()
    return torch.where(scale > 0, product / scale, 0.0).clamp(-1, 1).float()


def conflicting_share(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the share of the elements for which two gradients have opposite signs, among all elements."""
    opposite = torch.stack([(a * b < 0).sum() for a, b in zip(first, second, strict=True)]).sum()
    return opposite / sum(a.numel() for a in first)


def _groups(layers: LayerNames, extent: Extent) -> Tensor:
    """Return for each parameter the number of its group, (P,)."""
    if extent == "tensor":
        return torch.arange(len(layers))
    if extent == "network":
        return torch.zeros(len(layers), dtype=torch.int64)
    number = {name: i for i, name in enumerate(dict.fromkeys(layers))}
    return torch.tensor([number[name] for name in layers])
