"""Swin layers in operations that a graph for any image size can hold, for export.

The layouts of `window_attention` are tables made for one size, and its groups of windows are counted in Python. Here the graph
itself computes places of tokens and kinds of windows from the size of the map. Parameters and results are the same.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.swin_layers import SwinLayers
from basicsr.archs.window_attention import Order, WindowAttention


class AnySizeSwinLayers(SwinLayers):
    """`SwinLayers` for maps of any size; takes and returns tokens (n, h * w, dim) in the order of the image.

    Args:
        source: what it computes; its layers are shared.
    """

    def __init__(self, source: SwinLayers) -> None:
        super().__init__(source.blocks, source.window_size)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        order: Order = "image"
        kinds = _kinds_of_windows(size, self.window_size, x.device)
        for block in self.blocks:
            x = _reorder(x, size, self.window_size, order, block.order)
            order = block.order
            x = x + block.drop_path(_attend(block.attn, block.norm1(x), kinds if order == "shifted" else None))
            x = x + block.drop_path(block.mlp(block.norm2(x)))
        return _reorder(x, size, self.window_size, order, "image")


@runtime_checkable
class _GivesProjections(Protocol):
    def projections(self, x: Tensor) -> list[Tensor]: ...


def _reorder(x: Tensor, size: tuple[int, int], window: int, old: Order, new: Order) -> Tensor:
    """Return tokens of order `old` in order `new`; unlike in `TokenLayouts`, shifted windows follow each other row by row.

    In any order, the place of the pixel (y, x) is a function of y plus a function of x.
    """
    if old == new:
        return x
    height, width = size
    shift = (window // 2) * ((new == "shifted") - (old == "shifted"))
    # how far apart two windows, and two pixels of one window, are in `old`
    row_steps, column_steps = (
        ((width * window, width), (window, 1)) if old == "image" else ((width * window, window), (window**2, 1))
    )
    rows = _terms(height, window, shift, row_steps, x.device)
    columns = _terms(width, window, shift, column_steps, x.device)
    if new == "image":
        return x.index_select(1, (rows[:, None] + columns).flatten())
    places = rows.view(-1, 1, window, 1) + columns.view(1, -1, 1, window)  # rows of windows, columns, window, window
    return x.index_select(1, places.flatten())


def _terms(length: int, window: int, shift: int, steps: tuple[int, int], device: torch.device) -> Tensor:
    """Return what the rows (or columns) of the new order add to the places of their tokens in the old one, (length,)."""
    position = torch.arange(length, device=device).roll(-shift)
    return position // window * steps[0] + position % window * steps[1]


def _kinds_of_windows(size: tuple[int, int], window: int, device: torch.device) -> Tensor:
    """Return which of the masks of `shifted_window_masks` each window of the shifted map has, (windows,)."""
    rows, columns = (side // window for side in size)
    bottom = torch.arange(rows, device=device) == rows - 1
    right = torch.arange(columns, device=device) == columns - 1
    return (2 * bottom.long()[:, None] + right.long()).flatten()


def _attend(attention: WindowAttention, x: Tensor, kinds: Tensor | None) -> Tensor:
    """Attend within windows, tokens (n, tokens, dim) in their order; `kinds` for shifted windows only."""
    n, tokens, dim = x.shape
    q, k, v = (_heads(projection, attention) for projection in _projections(attention.qkv, x))
    logits = attention.qk(q * attention.scale, k.transpose(-2, -1)) + attention.position_bias()
    if kinds is not None:
        assert attention.masks is not None  # `kinds` are given to shifted windows, which have masks
        mask = attention.masks.index_select(0, kinds)  # windows, 1, window tokens, window tokens
        logits = logits + (mask if n == 1 else mask.repeat(n, 1, 1, 1))
    attended = attention.av(logits.softmax(dim=-1), v)
    return attention.proj(attended.transpose(1, 2).reshape(n, tokens, dim))


def _projections(qkv: nn.Linear, x: Tensor) -> list[Tensor]:
    """Return q, k and v, each (n, tokens, dim): three small products, which runtimes need not take apart again."""
    if isinstance(qkv, _GivesProjections):  # a layer that was built for a runtime
        return qkv.projections(x)
    biases: Sequence[Tensor | None] = [None] * 3 if qkv.bias is None else qkv.bias.split(x.shape[-1])
    return [F.linear(x, weight, bias) for weight, bias in zip(qkv.weight.split(x.shape[-1]), biases, strict=True)]


def _heads(projection: Tensor, attention: WindowAttention) -> Tensor:
    """Return (n, tokens, dim) as (n * windows, heads, window tokens, head dim)."""
    head_dim = projection.shape[-1] // attention.num_heads
    return projection.reshape(-1, attention.window_tokens, attention.num_heads, head_dim).transpose(1, 2)
