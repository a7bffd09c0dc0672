"""Residual blocks of two convolutions, and what networks whose body consists of them have in common."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.arch_util import ResidualAdd
from basicsr.archs.base import SRNetwork


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU in between, scaled and added to the input (n, num_feat, h, w)."""

    def __init__(self, num_feat: int, res_scale: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.add = ResidualAdd(num_feat, res_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.conv2(F.relu(self.conv1(x))))


class ResidualNetwork(SRNetwork):
    """A network with residual blocks in `body`, one after the other, which are its features and what is reconstructed.

    Attributes:
        body: the blocks.
    """

    body: nn.Sequential

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (n, num_feat, h, w) are compared in feature distillation."""
        return self.reconstruction_blocks

    @property
    def reconstruction_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that block-wise methods treat one by one, in order: the residual blocks."""
        return tuple(f"body.{i}" for i in range(len(self.body)))


def number_of_blocks(state_dict: Mapping[str, Tensor]) -> int:
    """Return how many residual blocks the tensors of a `body` belong to."""
    number = 0
    while f"body.{number}.conv1.weight" in state_dict:
        number += 1
    return number
