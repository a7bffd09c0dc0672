"""Small pieces that several architectures share."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

RGB_MEAN_DIV2K = (0.4488, 0.4371, 0.4040)


class MatMul(nn.Module):
    """Product of two activations, as a module without parameters, so that it can be hooked and quantized by type."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the batched matrix product of `a` (..., n, k) and `b` (..., k, m), shape (..., n, m)."""
        return a @ b


class ResidualAdd(nn.Module):
    """Sum of what a skip connection and its branch bring, as a module without parameters, so that it can be hooked and quantized by type.

    Args:
        channels: number of channels of both.
        scale: factor of the branch.
        channel_axis: the axis of the channels: 1 of maps (n, channels, h, w), -1 of tokens (n, tokens, channels).
    """

    def __init__(self, channels: int, scale: float = 1.0, channel_axis: int = 1) -> None:
        super().__init__()
        self.channels, self.scale, self.channel_axis = channels, scale, channel_axis

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return `skip + scale * branch`, all of one shape."""
        # the first summand decides the layout of the sum, and the branch has that in which convolutions are fastest
        return branch + skip if self.scale == 1 else torch.add(skip, branch, alpha=self.scale)


def is_bare(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether `module` is exactly a `kind` without hooks, so that a fused operation may do its work."""
    return type(module) is kind and not _has_hooks(module)


def is_observed(module: nn.Module) -> bool:
    """Return whether `module` or a part of it has hooks, which expect to see whole tensors."""
    return any(_has_hooks(part) for part in module.modules())


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def mirror_index(length: int, total: int, device: torch.device, *, repeat_edge: bool) -> Tensor:
    """Return the positions in a line of `length` pixels that continue it by mirroring up to `total` pixels.

    Args:
        length: number of pixels that exist, at least 1.
        total: number of pixels wanted; the line is mirrored as often as this needs.
        device: where the index is used.
        repeat_edge: True gives 0 1 2 2 1 0 0 1 .. (a flipped copy follows), False gives 0 1 2 1 0 1 .. (`reflect`).

    Returns:
        int64 tensor of shape (total,), values 0 .. length - 1.
    """
    period = max(2 * length if repeat_edge else 2 * (length - 1), 1)
    position = torch.arange(total, device=device) % period
    return torch.minimum(position, (period - 1 if repeat_edge else period) - position)


def mirror_to_size(x: Tensor, height: int, width: int, *, repeat_edge: bool) -> Tensor:
    """Continue images (..., h, w) to the right and below by mirroring, to (..., height, width); see `mirror_index`."""
    if x.shape[-2] != height:
        x = x.index_select(-2, mirror_index(x.shape[-2], height, x.device, repeat_edge=repeat_edge))
    if x.shape[-1] != width:
        x = x.index_select(-1, mirror_index(x.shape[-1], width, x.device, repeat_edge=repeat_edge))
    return x


def pixel_shuffle_steps(upscale: int, channels: int, in_channels: int | None = None) -> nn.Sequential:
    """Return convolutions and pixel shuffles that enlarge by 2 several times, or by 3 once.

    Args:
        upscale: a power of two, or 3.
        channels: number of channels before and after each step.
        in_channels: number of channels before the first step, if it is another.

    Raises:
        ValueError: any other factor.
    """
    if upscale == 3:
        factors = [3]
    elif upscale > 0 and upscale & (upscale - 1) == 0:
        factors = [2] * (upscale.bit_length() - 1)
    else:
        raise ValueError(f"upscale is {upscale}, but must be 3 or a power of two for this upsampler.")
    steps: list[nn.Module] = []
    inputs = in_channels or channels
    for factor in factors:
        steps += [nn.Conv2d(inputs, channels * factor**2, 3, 1, 1), nn.PixelShuffle(factor)]
        inputs = channels
    return nn.Sequential(*steps)


def upscale_of_steps(state_dict: Mapping[str, Tensor], name: str, channels: int) -> int:
    """Return the scale factor of `pixel_shuffle_steps` from its weights.

    Args:
        state_dict: tensors by name.
        name: module that holds the steps; a convolution without a pixel shuffle may follow them.
        channels: number of channels after each step.
    """
    upscale, index = 1, 0
    while (weight := state_dict.get(f"{name}.{index}.weight")) is not None and weight.shape[0] >= 4 * channels:
        upscale *= math.isqrt(weight.shape[0] // channels)
        index += 2  # a pixel shuffle follows each convolution
    return upscale
