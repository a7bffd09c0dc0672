"""Layers of SwinIR between its convolutions; see window_attention for the order of their tokens."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from basicsr.archs.window_attention import Order, WindowAttention, token_layouts


def to_tokens(x: Tensor) -> Tensor:
    """Return a map (n, c, h, w) as tokens (n, h * w, c); a view if the map is channels_last."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return tokens (n, h * w, c) in the order of the image as a channels_last map (n, c, h, w), a view."""
    return x.transpose(1, 2).unflatten(2, size)


class DropPath(nn.Module):
    """In training, drop the branch of a sample with probability `rate`, and enlarge it by 1 / (1 - rate) otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        kept = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


class Mlp(nn.Module):
    """Two linear layers with GELU in between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class SwinLayer(nn.Module):
    """Swin Transformer layer: window attention and MLP, each normalised before and added to its input.

    It takes and returns tokens (n, tokens, dim) in the order that its attribute `order` names.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        order: Order,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.order = order
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, order, qkv_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, groups: tuple[int, ...]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), groups))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinLayers(nn.Module):
    """Swin layers with aligned and shifted windows in turn. Takes and returns tokens in the order of the image."""

    blocks: Sequence[SwinLayer]  # an nn.ModuleList

    def __init__(self, layers: Sequence[SwinLayer], window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.blocks = cast("Sequence[SwinLayer]", nn.ModuleList(layers))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        layouts = token_layouts(*size, self.window_size, x.device)
        order: Order = "image"
        for block in self.blocks:
            x = block(layouts.reorder(x, order, block.order), layouts.groups[block.order])
            order = block.order
        return layouts.reorder(x, order, "image")


class ResidualSwinGroup(nn.Module):
    """Residual Swin Transformer block (RSTB): Swin layers and a convolution, added to the input; (n, tokens, dim)."""

    def __init__(self, layers: SwinLayers, conv: nn.Module, add: nn.Module) -> None:
        super().__init__()
        self.residual_group = layers
        self.conv = conv
        self.add = add

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.add(x, to_tokens(self.conv(to_map(self.residual_group(x, size), size))))


class TokenNorm(nn.Module):
    """Normalises the channels of each token; exists as a module for its name in the state dict."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)
