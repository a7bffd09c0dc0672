"""Small networks with the module names and state-dict keys of the official ones, for tests of insertion and capture."""

import torch
from torch import Tensor, nn


class MatMul(nn.Module):
    """Like the parameter-free module of the architectures: it goes by its class name."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qk, self.av = MatMul(), MatMul()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = self.qk(q * self.scale, k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj(self.av(weights, v).transpose(1, 2).reshape(n, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class SwinLayer(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TinySwin(nn.Module):
    """Attention over all pixels at once instead of windows; otherwise the names of SwinIR."""

    def __init__(self, dim: int = 12, heads: int = 2, groups: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, dim, 3, 1, 1)
        self.layers = nn.ModuleList()
        for _ in range(groups):
            group = nn.Module()
            group.residual_group = nn.Module()
            group.residual_group.blocks = nn.ModuleList(SwinLayer(dim, heads) for _ in range(depth))
            self.layers.append(group)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, 1, 1)
        self.upsample = nn.Sequential(nn.Conv2d(dim, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv_first(x)
        tokens = features.flatten(2).transpose(1, 2)  # N, H*W, C
        for group in self.layers:
            for block in group.residual_group.blocks:
                tokens = block(tokens)
        body = tokens.transpose(1, 2).view_as(features)
        return self.upsample(features + self.conv_after_body(body))


class ResidualBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1), nn.Conv2d(dim, dim, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class TinyEdsr(nn.Module):
    def __init__(self, dim: int = 6, blocks: int = 3) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, dim, 3, 1, 1)
        self.body = nn.Sequential(*(ResidualBlock(dim) for _ in range(blocks)))
        self.conv_after_body = nn.Conv2d(dim, dim, 3, 1, 1)
        self.upsample = nn.Sequential(nn.Conv2d(dim, 4 * dim, 3, 1, 1), nn.PixelShuffle(2))
        self.conv_last = nn.Conv2d(dim, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        return self.conv_last(self.upsample(x + self.conv_after_body(self.body(x))))


class DenseConv(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, growth, 3, 1, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x)], dim=1)


class DenseBlock(nn.Module):
    def __init__(self, dim: int, growth: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(DenseConv(dim + i * growth, growth) for i in range(layers)))
        self.LFF = nn.Conv2d(dim + layers * growth, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.LFF(self.convs(x))


class TinyRdn(nn.Module):
    def __init__(self, dim: int = 6, growth: int = 4, blocks: int = 2, layers: int = 3) -> None:
        super().__init__()
        self.SFENet1 = nn.Conv2d(3, dim, 3, 1, 1)
        self.RDBs = nn.ModuleList(DenseBlock(dim, growth, layers) for _ in range(blocks))
        self.GFF = nn.Sequential(nn.Conv2d(blocks * dim, dim, 1), nn.Conv2d(dim, dim, 3, 1, 1))
        self.UPNet = nn.Sequential(nn.Conv2d(dim, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        x, outputs = self.SFENet1(x), []
        for block in self.RDBs:
            x = block(x)
            outputs.append(x)
        return self.UPNet(self.GFF(torch.cat(outputs, dim=1)))
