"""Matlab's bicubic `imresize`, the reduction by which the low-resolution images of the field's benchmarks are made.

Cubic convolution with a = -0.5 (Keys, 1981), stretched by 1/scale when reducing (antialiasing), symmetric border. Lengths
are rounded up. Differentiable, on any device.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

# The weights of integer factors are fractions, and many a weighted sum is exactly half way between two grey levels. This
# margin, far below their spacing, keeps errors of the last bit from deciding how such a tie is rounded.
_TIE_MARGIN = 1e-9
_VALUES_AT_ONCE = 1 << 23


def imresize(images: Tensor, scale: float) -> Tensor:
    """Resize images as Matlab does; values may overshoot the range of the input and are not clipped.

    Args:
        images: N,C,H,W floats on any device.
        scale: factor of both sides, below 1 to reduce.

    Returns:
        N,C,ceil(H*scale),ceil(W*scale), of the same type and on the same device; differentiable.
    """
    return _resize_side(_resize_side(images, 2, scale), 3, scale)


def downscale_image(image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce an image of integers bit for bit as Matlab does: rounded half up and clipped after the rows, then the columns.

    Args:
        image: H,W,C, uint8 or uint16.
        scale: the reduction, such as 4; crop the image with `crop_to_multiple` first to make an LR/HR pair.

    Returns:
        ceil(H/scale),ceil(W/scale),C of the same type.
    """
    return _resize_integers(image, 1 / scale)


def upscale_image(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge an image of integers as Matlab does (the bicubic baseline of the field); see `downscale_image`."""
    return _resize_integers(image, float(scale))


def crop_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """Cut H,W,C at the bottom and the right so that both sides are multiples of `scale`; the result is a view."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def _resize_integers(image: np.ndarray, scale: float) -> np.ndarray:
    for dim in (0, 1):
        image = _resize_side_of_integers(image, dim, scale)
    return image


def _resize_side_of_integers(image: np.ndarray, dim: int, scale: float) -> np.ndarray:
    """Resize one side, a strip across it after the other, since numbers of 64 bits take eight times the memory of the pixels."""
    across = image.shape[1 - dim]
    number = max(1, -(-image.size // _VALUES_AT_ONCE))
    strips = []
    for strip in np.array_split(image, min(number, max(across, 1)), axis=1 - dim):
        resized = _resize_side(torch.from_numpy(strip.astype(np.float64)), dim, scale)
        strips.append(_round_half_up(resized, np.iinfo(image.dtype).max).numpy().astype(image.dtype))
    return strips[0] if len(strips) == 1 else np.concatenate(strips, axis=1 - dim)


def _round_half_up(values: Tensor, limit: int) -> Tensor:
    return values.add_(0.5 + _TIE_MARGIN).floor_().clamp_(0, limit)


def _resize_side(images: Tensor, dim: int, scale: float) -> Tensor:
    """Resize one side: the sum, over the taps of the kernel, of shifted and weighted copies."""
    indices, weights = _taps(images.shape[dim], scale)
    shape = [-1 if side == dim else 1 for side in range(images.ndim)]
    weights = weights.to(images).view(len(weights), *shape)  # taps,length_out -> taps,1..length_out..1
    total = torch.zeros((), dtype=images.dtype, device=images.device)
    for index, weight in zip(indices.to(images.device), weights, strict=True):
        total = total + images.index_select(dim, index) * weight
    return total


@functools.lru_cache(maxsize=32)
def _taps(length: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return, for one side, which input pixels make each output pixel and their weights, both (taps, ceil(length*scale))."""
    length_out = math.ceil(length * scale - _TIE_MARGIN)
    stretch = max(1.0, 1 / scale)
    centres = (
        torch.arange(length_out, dtype=torch.float64) + 0.5
    ) / scale - 0.5  # where output pixels lie in the input
    first = torch.floor(centres - 2 * stretch).long()
    indices = first + torch.arange(math.ceil(4 * stretch) + 2)[:, None]
    weights = _cubic((centres - indices) / stretch)
    used = (weights != 0).any(dim=1)
    indices, weights = indices[used], weights[used] / weights.sum(dim=0)
    indices = indices.remainder(2 * length)
    indices = torch.where(indices < length, indices, 2 * length - 1 - indices)  # ... c b a | a b c ... | c b a ...
    return indices, weights


def _cubic(distance: Tensor) -> Tensor:
    """Return the cubic convolution kernel with a = -0.5 (Keys, 1981, equation 15)."""
    x = distance.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))
