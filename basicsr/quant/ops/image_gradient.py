"""How strongly pictures change from pixel to pixel."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def mean_image_gradient(images: Tensor) -> Tensor:
    """Return the mean magnitude of the horizontal and of the vertical gradient of each picture, (N, 2).

    Sobel's kernel is divided by 8, the sum of its magnitudes, and the border is repeated.

    Args:
        images: (N, C, H, W); RGB ones are turned to grey first, others by the mean of their channels.
    """
    channels = images.shape[1]
    weights = _on_device(_LUMA, images) if channels == len(_LUMA) else images.new_full((channels,), 1 / channels)
    grey = (images * weights.view(-1, 1, 1)).sum(1, keepdim=True)
    sobel = _on_device(_SOBEL, images) / 8
    kernels = torch.stack([sobel, sobel.T]).unsqueeze(1)  # 2, 1, 3, 3
    gradients = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels)
    return gradients.abs().mean(dim=(2, 3))


def _on_device(numbers: Sequence[object], like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type of another one and beside it; the host does not wait for their copy."""
    return torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True)
