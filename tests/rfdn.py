"""RFDN (Liu et al. 2020, arXiv 2009.11551), a network of other authors that no command knows: it names no layers, blocks or sizes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, DISTILLED, ATTENTION = 50, 25, 12


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.05)


class SpatialAttention(nn.Module):
    """Enhanced spatial attention: (n, 50, h, w) times a map that sees far; at least 15 x 15 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv_f = nn.Conv2d(CHANNELS, ATTENTION, 1), nn.Conv2d(ATTENTION, ATTENTION, 1)
        self.conv2 = nn.Conv2d(ATTENTION, ATTENTION, 3, 2, 0)
        self.conv_max, self.conv3, self.conv3_ = (nn.Conv2d(ATTENTION, ATTENTION, 3, 1, 1) for _ in range(3))
        self.conv4 = nn.Conv2d(ATTENTION, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        wide = F.max_pool2d(self.conv2(reduced), 7, 3)
        wide = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(wide)))))
        wide = F.interpolate(wide, x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(reduced)))


class DistillationBlock(nn.Module):
    """Three times a part is kept and the rest refined; what was kept is joined and weighted by the attention."""

    def __init__(self) -> None:
        super().__init__()
        for step in (1, 2, 3):
            self.add_module(f"c{step}_d", nn.Conv2d(CHANNELS, DISTILLED, 1))
            self.add_module(f"c{step}_r", nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1))
        self.c4 = nn.Conv2d(CHANNELS, DISTILLED, 3, 1, 1)
        self.c5 = nn.Conv2d(4 * DISTILLED, CHANNELS, 1)
        self.esa = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for step in (1, 2, 3):
            kept.append(_activate(self.get_submodule(f"c{step}_d")(x)))
            x = _activate(self.get_submodule(f"c{step}_r")(x) + x)
        kept.append(_activate(self.c4(x)))
        return self.esa(self.c5(torch.cat(kept, 1)))


class RFDN(nn.Module):
    """RFDN x4 for images in 0..1; inside, as it was trained, in 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.fea_conv = nn.Conv2d(3, CHANNELS, 3, 1, 1)
        self.B1, self.B2, self.B3, self.B4 = (DistillationBlock() for _ in range(4))
        self.c = nn.Sequential(nn.Conv2d(4 * CHANNELS, CHANNELS, 1), nn.LeakyReLU(0.05))
        self.LR_conv = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)
        self.upsampler = nn.Sequential(nn.Conv2d(CHANNELS, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.fea_conv(x * 255)
        blocks = []
        for block in (self.B1, self.B2, self.B3, self.B4):
            x = block(x)
            blocks.append(x)
        return self.upsampler(self.LR_conv(self.c(torch.cat(blocks, 1))) + first) / 255
