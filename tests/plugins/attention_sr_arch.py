"""A residual network with channel attention that no command knows: written as a user would, with no hint of what to quantize how."""

import torch
from torch import Tensor, nn

from basicsr.archs.base import SRNetwork
from basicsr.utils.registry import ARCH_REGISTRY


class ChannelAttention(nn.Module):
    """Each channel of (n, c, h, w) times a number from 0 to 1 that follows from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class AttentionBlock(nn.Module):
    """Two convolutions with PReLU between them, the attention, and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand, self.act = nn.Conv2d(channels, 2 * channels, 3, 1, 1), nn.PReLU()
        self.reduce, self.attention = nn.Conv2d(2 * channels, channels, 3, 1, 1), ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.reduce(self.act(self.expand(x))))


@ARCH_REGISTRY.register()
class AttentionSR(SRNetwork):
    """Enlarges images (n, 3, h, w) with values 0..1 by `upscale`.

    Args:
        channels: of the features; the blocks have twice as many inside.
        blocks: number of blocks.
        upscale: the scale factor.
    """

    def __init__(self, *, channels: int = 24, blocks: int = 6, upscale: int = 4) -> None:
        super().__init__()
        self.scale = upscale
        self.head = nn.Conv2d(3, channels, 3, 1, 1)
        self.trunk = nn.Sequential(*(AttentionBlock(channels) for _ in range(blocks)))
        self.fuse = nn.Conv2d(channels, channels, 3, 1, 1)
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x - 0.5)
        return self.tail(first + self.fuse(self.trunk(first))) + 0.5
