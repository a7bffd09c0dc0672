"""SwinIR written step by step as the paper describes it, without any shortcut: an oracle for tests and a benchmark.

Every forward cuts the feature map into windows, adds the position bias and the mask of the shifted windows to a
materialised attention map, and puts the windows together again. The mask is computed in each shifted block unless the
size equals the one that the network was built for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cut_windows(x: Tensor, window: int) -> Tensor:
    """N,H,W,C -> N*windows,window*window,C."""
    n, h, w, c = x.shape
    x = x.view(n, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window * window, c)


def join_windows(windows: Tensor, window: int, h: int, w: int) -> Tensor:
    """N*windows,window*window,C -> N,H,W,C."""
    c = windows.shape[-1]
    x = windows.view(-1, h // window, w // window, window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, h, w, c)


def position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, (tokens, tokens)."""
    rows = torch.arange(window).repeat_interleave(window)
    columns = torch.arange(window).repeat(window)
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(h: int, w: int, window: int, shift: int) -> Tensor:
    """-100 between tokens of a window that were not neighbours before the cyclic shift, (windows, tokens, tokens)."""
    regions = torch.zeros(1, h, w, 1)
    parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            regions[:, rows, columns] = 3 * i + j
    region = cut_windows(regions, window).squeeze(-1)
    difference = region[:, None, :] - region[:, :, None]
    return torch.where(difference == 0, 0.0, -100.0)


class PlainAttention(nn.Module):
    def __init__(self, dim: int, window: int, heads: int):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("index", position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attention = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.index.view(-1)].view(n, n, -1)
        attention = attention + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attention = attention.view(b // windows, windows, self.heads, n, n) + mask[None, :, None]
            attention = attention.view(-1, self.heads, n, n)
        attention = attention.softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class PlainMlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, built_for: int, window: int, heads: int, shift: int, mlp_ratio: float):
        super().__init__()
        self.window, self.shift, self.built_for = window, shift, (built_for, built_for)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PlainAttention(dim, window, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = PlainMlp(dim, int(dim * mlp_ratio))
        mask = shift_mask(built_for, built_for, window, shift) if shift else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        h, w = size
        n, tokens, c = x.shape
        y = self.norm1(x).view(n, h, w, c)
        mask = None
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), dims=(1, 2))
            mask = self.mask if size == self.built_for else shift_mask(h, w, self.window, self.shift).to(x)
        y = join_windows(self.attn(cut_windows(y, self.window), mask), self.window, h, w)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), dims=(1, 2))
        x = x + y.view(n, tokens, c)
        return x + self.mlp(self.norm2(x))


class PlainGroup(nn.Module):
    def __init__(self, depth: int, **block):
        super().__init__()
        window = block["window"]
        self.blocks = nn.ModuleList(PlainBlock(**block, shift=0 if i % 2 == 0 else window // 2) for i in range(depth))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        for block in self.blocks:
            x = block(x, size)
        return x


class PlainLayer(nn.Module):
    def __init__(self, depth: int, conv: nn.Module, **block):
        super().__init__()
        self.residual_group = PlainGroup(depth, **block)
        self.conv = conv

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        y = self.residual_group(x, size)
        y = y.transpose(1, 2).reshape(x.shape[0], -1, *size)
        return self.conv(y).flatten(2).transpose(1, 2) + x


class PlainNormed(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)


def residual_conv(dim: int, kind: str) -> nn.Module:
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    first, middle, last = (
        nn.Conv2d(dim, dim // 4, 3, 1, 1),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.Conv2d(dim // 4, dim, 3, 1, 1),
    )
    return nn.Sequential(first, nn.LeakyReLU(0.2), middle, nn.LeakyReLU(0.2), last)


class PlainSwinIR(nn.Module):
    """SwinIR for super-resolution with the official parameter names."""

    def __init__(
        self,
        upscale: int = 4,
        img_size: int = 64,
        window_size: int = 8,
        depths: tuple[int, ...] = (6, 6, 6, 6),
        embed_dim: int = 60,
        num_heads: tuple[int, ...] = (6, 6, 6, 6),
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffledirect",
        resi_connection: str = "1conv",
    ):
        super().__init__()
        self.window, self.upsampler, self.upscale = window_size, upsampler, upscale
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, embed_dim, 3, 1, 1)
        self.patch_embed = PlainNormed(embed_dim)
        block = {"dim": embed_dim, "built_for": img_size, "window": window_size, "mlp_ratio": mlp_ratio}
        self.layers = nn.ModuleList(
            PlainLayer(depth, residual_conv(embed_dim, resi_connection), heads=heads, **block)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        if upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(nn.Conv2d(embed_dim, 3 * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))
            return
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, 64, 3, 1, 1), nn.LeakyReLU())
        if upsampler == "pixelshuffle":
            steps = []
            for factor in [3] if upscale == 3 else [2] * (upscale.bit_length() - 1):
                steps += [nn.Conv2d(64, 64 * factor**2, 3, 1, 1), nn.PixelShuffle(factor)]
            self.upsample = nn.Sequential(*steps)
        else:
            self.conv_up1 = nn.Conv2d(64, 64, 3, 1, 1)
            if upscale == 4:
                self.conv_up2 = nn.Conv2d(64, 64, 3, 1, 1)
            self.conv_hr = nn.Conv2d(64, 64, 3, 1, 1)
        self.conv_last = nn.Conv2d(64, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % self.window, 0, -h % self.window), mode="reflect") - self.mean
        shallow = self.conv_first(x)
        size = (x.shape[2], x.shape[3])
        tokens = self.patch_embed.norm(shallow.flatten(2).transpose(1, 2))
        for layer in self.layers:
            tokens = layer(tokens, size)
        deep = self.norm(tokens).transpose(1, 2).reshape(x.shape[0], -1, *size)
        y = self.enlarge(self.conv_after_body(deep) + shallow)
        return (y + self.mean)[..., : h * self.upscale, : w * self.upscale]

    def enlarge(self, x: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        x = F.leaky_relu(self.conv_up1(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        if self.upscale == 4:
            x = F.leaky_relu(self.conv_up2(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
