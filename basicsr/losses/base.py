"""What a loss is: a module that compares what two networks, or a network and an image, give."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """A loss, times its weight. The arguments of its constructor are its options in YAML; any `nn.Module` with `forward` will do.

    What is compared depends on where the options name it: two batches of images (N, C, H, W) in 0..1 for a pixel loss, two
    mappings from the names of modules to their outputs for a feature loss, and a mapping from the names of quantizers to pairs of
    tensors, before and after, for a mismatch loss.
    """

    @abstractmethod
    def forward(self, *compared: Any) -> Tensor:
        """Return the loss, a scalar with a gradient to the first of what is compared."""


def total_of(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of losses, one at least, in their order."""
    return reduce(torch.add, losses.values())
