"""Self-attention in windows on a feature map whose tokens are kept in the order of the windows.

Everything between two convolutions of SwinIR treats tokens one by one (normalisation, linear layers) or window by
window (attention), so the tokens are put into the order of the windows once and only reordered where the windows
move. Windows of the shifted map are grouped by the part of the mask that applies to them: all windows of a group
share one sum of position bias and mask, whatever the size of the image, and no mask of the size of the image is ever
built.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.arch_util import MatMul, is_bare, is_observed

Order = Literal["image", "aligned", "shifted"]

_MASKED = -100.0  # added to the logit of two tokens that are no neighbours in the image, as in Swin Transformer
_WINDOWS_AT_ONCE = 24  # attention maps of so many windows stay in a CPU's cache (2.4 MB for 6 heads of 64 tokens)
_HEAD_DIM_MULTIPLE = 8  # head dimensions are padded to this: matrix products are much faster with aligned rows


class _Reorder(torch.autograd.Function):
    """Permute tokens. The gradient is the inverse permutation, a gather, where index_select would scatter."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:  # noqa: ARG004
        return x.index_select(1, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _Reorder.apply(gradient, inverse, index), None, None


class TokenLayouts:
    """The orders in which the tokens of one feature map are kept, and the ways from one to another.

    `image`: row by row. `aligned`: window by window. `shifted`: window by window of the map after a cyclic shift by
    half a window to the top left; first the windows inside, then those at the right edge, at the bottom edge, and the
    corner.

    Args:
        height, width: size of the feature map, multiples of `window`.
        window: side of a window in tokens.
        device: where the indices live.

    Attributes:
        groups: number of windows in each group that shares a mask; one group in `aligned`, four in `shifted`.
    """

    def __init__(self, height: int, width: int, window: int, device: torch.device) -> None:
        image = torch.arange(height * width, device=device).view(height, width)
        shift = window // 2
        aligned = _cut(image, window)
        shifted = _cut(image.roll((-shift, -shift), (0, 1)), window)
        regions = (shifted[:-1, :-1], shifted[:-1, -1], shifted[-1, :-1], shifted[-1, -1])
        parts = [part.reshape(-1, window * window) for part in regions]  # windows, tokens
        self.groups: dict[Order, tuple[int, ...]] = {
            "aligned": (aligned.shape[0] * aligned.shape[1],),
            "shifted": tuple(len(part) for part in parts),
        }
        places: dict[Order, Tensor] = {
            "image": image.flatten(),
            "aligned": aligned.flatten(),
            "shifted": torch.cat(parts).flatten(),
        }
        ranks = {order: _inverse(place) for order, place in places.items()}
        self._index = {(old, new): ranks[old][places[new]] for old in places for new in places if old != new}

    def reorder(self, x: Tensor, old: Order, new: Order) -> Tensor:
        """Return tokens (n, tokens, channels) of order `old` in order `new`."""
        if old == new:
            return x
        return _Reorder.apply(x, self._index[old, new], self._index[new, old])


def _inverse(permutation: Tensor) -> Tensor:
    """Return the permutation that undoes this one, both (elements,)."""
    return torch.empty_like(permutation).scatter_(
        0, permutation, torch.arange(len(permutation), device=permutation.device)
    )


def _cut(image: Tensor, window: int) -> Tensor:
    """Cut (h, w) into windows, (rows of windows, columns of windows, tokens of a window)."""
    height, width = image.shape
    windows = image.view(height // window, window, width // window, window)
    return windows.transpose(1, 2).reshape(height // window, width // window, -1)


def token_layouts(height: int, width: int, window: int, device: torch.device) -> TokenLayouts:
    """Return the layouts for one size, kept for the next image of that size.

    Sizes seen in training are few and are kept for good: a recorded CUDA graph reads the indices at their addresses.
    """
    if torch.compiler.is_compiling():  # compilers do not see what is kept between calls; this is a few small kernels
        return TokenLayouts(height, width, window, device)
    keep = _trained_layouts if torch.is_grad_enabled() else _recent_layouts
    return keep(height, width, window, device)


_trained_layouts = lru_cache(maxsize=None)(TokenLayouts)  # never those of inference mode, which autograd refuses
_recent_layouts = lru_cache(maxsize=8)(TokenLayouts)


def relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each pair of tokens, int64 of shape (window**4,), query-major."""
    row = torch.arange(window).repeat_interleave(window)
    column = torch.arange(window).repeat(window)
    rows_apart = row[:, None] - row[None, :] + window - 1  # 0 .. 2 * window - 2
    columns_apart = column[:, None] - column[None, :] + window - 1
    return (rows_apart * (2 * window - 1) + columns_apart).flatten()


def shifted_window_masks(window: int) -> Tensor:
    """Return what is added to the logits in the four groups of windows of `shifted`, shape (4, 1, tokens, tokens)."""
    wrapped = torch.arange(window) >= window - window // 2  # what the cyclic shift brought from the opposite side
    below = wrapped.repeat_interleave(window).long()
    right = wrapped.repeat(window).long()
    region = torch.stack([torch.zeros_like(below), right, below, 2 * below + right])  # groups, tokens
    apart = region[:, None, :, None] != region[:, None, None, :]
    return torch.zeros(apart.shape).masked_fill(apart, _MASKED)


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows with a learned relative position bias (Swin Transformer, equation 4).

    The two products of activations are the modules `qk` and `av`. As long as these are bare `MatMul` modules, a fused
    attention does their work; a quantized or hooked one is called, and then sees q * scale and k, the softmax and v.

    Args:
        dim: number of channels, a multiple of `num_heads`.
        window_size: side of a window in tokens.
        num_heads: number of heads.
        order: order of the tokens that this attention gets.
        qkv_bias: whether q, k and v have a bias.
    """

    relative_position_index: Tensor
    masks: Tensor | None

    def __init__(self, dim: int, window_size: int, num_heads: int, order: Order, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_tokens = window_size**2
        self.scale = (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", relative_position_index(window_size), persistent=False)
        masks = shifted_window_masks(window_size) if order == "shifted" else None
        self.register_buffer("masks", masks, persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.qk = MatMul()
        self.av = MatMul()
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def own_macs(self, _inputs: tuple[Tensor, ...], _output: Tensor, /) -> int:
        """Return the products with parameters of its own: none, for the position bias is added."""
        return 0

    def forward(self, x: Tensor, groups: tuple[int, ...]) -> Tensor:
        """Attend within windows.

        Args:
            x: tokens in the order of the windows, (n, tokens, dim).
            groups: number of windows that share a mask, in this order; they sum to tokens / window_tokens.

        Returns:
            Tokens of the same shape and order.
        """
        n, tokens, dim = x.shape
        qkv = self.qkv(x).view(n, -1, self.window_tokens, 3, self.num_heads, dim // self.num_heads)
        bias = self._bias().to(qkv.dtype)
        needs_gradient = torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad)
        # the backward pass of the fused kernel for CPUs is slower than that of separate products
        if not (is_bare(self.qk, MatMul) and is_bare(self.av, MatMul)) or (qkv.is_cpu and needs_gradient):
            whole = needs_gradient or not qkv.is_cpu or is_observed(self.qk) or is_observed(self.av)
            whole = whole or torch.compiler.is_compiling()  # the number of windows is no constant of a graph
            attended = (self._attend_by_modules if whole else self._attend_by_modules_in_cache)(qkv, bias, groups)
        elif qkv.is_cpu:
            attended = _attend_in_cache(qkv, bias, groups, self.scale)
        else:
            attended = _attend_fused(qkv, bias, groups, self.scale)
        return self.proj(attended.reshape(n, tokens, dim))

    def position_bias(self) -> Tensor:
        """Return what the positions of two tokens add to their logit, (1, heads, window tokens, window tokens)."""
        bias = self.relative_position_bias_table.t().index_select(1, self.relative_position_index)
        return bias.view(1, self.num_heads, self.window_tokens, self.window_tokens)

    def _bias(self) -> Tensor:
        """Return position bias plus mask for each group of windows, (groups, heads, window tokens, window tokens)."""
        return self.position_bias() if self.masks is None else self.position_bias() + self.masks

    def _attend_by_modules(self, qkv: Tensor, bias: Tensor, groups: tuple[int, ...]) -> Tensor:
        q, k, v = qkv.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)  # each n * windows, heads, window tokens, head dim
        logits = self.qk(q * self.scale, k.transpose(-2, -1))
        if len(groups) > 1:
            bias = torch.cat([part.expand(count, -1, -1, -1) for part, count in zip(bias, groups, strict=True)])
        logits = logits.unflatten(0, qkv.shape[:2]) + bias  # n, windows, heads, window tokens, window tokens
        attended = self.av(logits.softmax(dim=-1).flatten(0, 1), v)
        return attended.transpose(1, 2)  # n * windows, window tokens, heads, head dim

    def _attend_by_modules_in_cache(self, qkv: Tensor, bias: Tensor, groups: tuple[int, ...]) -> Tensor:
        """Attend as `_attend_by_modules`, a few windows at a time, whose maps stay in a CPU's cache. Not differentiable."""
        q, k, v = qkv.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)  # each n * windows, heads, window tokens, head dim
        attended = qkv.new_empty(len(q), qkv.shape[2], *qkv.shape[4:])
        for part, kind in _parts_in_cache(groups, len(qkv), qkv.device):
            logits = self.qk(q[part] * self.scale, k[part].transpose(-2, -1)) + bias.index_select(0, kind)
            attended[part] = self.av(torch.softmax(logits, dim=-1, out=logits), v[part]).transpose(1, 2)
        return attended


def _parts_in_cache(groups: tuple[int, ...], n: int, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Cut the windows of n samples into parts of at most `_WINDOWS_AT_ONCE`; yields with each the groups of its windows."""
    counts = torch.tensor(groups, device=device)
    kinds = torch.arange(len(groups), device=device).repeat_interleave(counts).repeat(n)  # group of each window
    for start in range(0, len(kinds), _WINDOWS_AT_ONCE):
        kind = kinds[start : start + _WINDOWS_AT_ONCE]
        yield slice(start, start + len(kind)), kind


def _attend_fused(qkv: Tensor, bias: Tensor, groups: tuple[int, ...], scale: float) -> Tensor:
    """Attend with torch's fused kernels, one call for each group of windows.

    Args:
        qkv: (n, windows, window tokens, 3, heads, head dim).
        bias: (groups, heads, window tokens, window tokens).
        groups: number of windows of each group.
        scale: factor of q.

    Returns:
        (n, windows, window tokens, heads, head dim).
    """
    head_dim = qkv.shape[-1]
    qkv = F.pad(qkv, (0, -head_dim % _HEAD_DIM_MULTIPLE))  # other kernels build the attention maps in memory
    attended = []
    for part, group_bias in zip(qkv.split(groups, dim=1), bias, strict=True):
        if part.shape[1] == 0:
            continue
        q, k, v = part.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)  # n * windows, heads, window tokens, head dim
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=group_bias[None], scale=scale)[..., :head_dim]
        attended.append(y.transpose(1, 2).unflatten(0, part.shape[:2]))
    return torch.cat(attended, dim=1)


def _attend_in_cache(qkv: Tensor, bias: Tensor, groups: tuple[int, ...], scale: float) -> Tensor:
    """Attend a few windows at a time in memory that is used again and again; arguments and result as `_attend_fused`.

    On a CPU this is faster than the fused kernel, whose matrix products for windows of 64 tokens are tiny, and
    several times faster than attention maps of the whole image, which are written to and read from main memory. Not
    differentiable.
    """
    n, windows_per_sample, tokens, _, heads, head_dim = qkv.shape
    qkv = qkv.flatten(0, 1)  # n * windows, window tokens, 3, heads, head dim
    padded = -(-head_dim // _HEAD_DIM_MULTIPLE) * _HEAD_DIM_MULTIPLE
    windows_at_once = min(_WINDOWS_AT_ONCE, len(qkv))
    attended = qkv.new_empty(len(qkv), tokens, heads, head_dim)
    qkv_memory = qkv.new_zeros(3, windows_at_once, heads, tokens, padded)
    logits_memory = qkv.new_empty(windows_at_once, heads, tokens, tokens)
    for part, kind in _parts_in_cache(groups, n, qkv.device):
        aligned = qkv_memory[:, : len(kind)]
        aligned[..., :head_dim] = qkv[part].permute(2, 0, 3, 1, 4)
        q, k, v = aligned.flatten(1, 2)  # each windows * heads, window tokens, padded head dim
        logits = torch.index_select(bias, 0, kind, out=logits_memory[: len(kind)]).flatten(0, 1)
        logits.baddbmm_(q, k.transpose(1, 2), alpha=scale)
        torch.softmax(logits, dim=-1, out=logits)
        y = torch.bmm(logits, v).unflatten(0, (-1, heads))  # windows, heads, window tokens, padded head dim
        attended[part] = y[..., :head_dim].transpose(1, 2)
    return attended.unflatten(0, (n, windows_per_sample))
