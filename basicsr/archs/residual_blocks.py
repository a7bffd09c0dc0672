"""Residual blocks of two convolutions, and what networks whose body consists of them have in common."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.arch_util import ResidualAdd, pixel_shuffle_steps
from basicsr.archs.base import SRNetwork
from basicsr.utils.errors import OptionsError


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU in between, scaled and added to the input (n, num_feat, h, w)."""

    def __init__(self, num_feat: int, res_scale: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.add = ResidualAdd(num_feat, res_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.conv2(F.relu(self.conv1(x))))


class ResidualNetwork(SRNetwork):
    """A network with residual blocks in `body`, one after the other, which are its features and what is reconstructed.

    Attributes:
        body: the blocks.
    """

    body: nn.Sequential

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (n, num_feat, h, w) are compared in feature distillation."""
        return self.reconstruction_blocks

    @property
    def reconstruction_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that block-wise methods treat one by one, in order: the residual blocks."""
        return tuple(f"body.{i}" for i in range(len(self.body)))


class LongSkipNetwork(ResidualNetwork):
    """A body and a convolution, bridged by one long skip connection, between colours without their mean: EDSR and RCAN.

    Args:
        blocks: the body, made after the first convolution.
        channels: of the input image, of the output image, and inside.
        upscale: scale factor.
        img_range: the image is multiplied by this after its mean is taken away.
        rgb_mean: mean of the training images, one value in 0..1 for each channel.

    Attributes:
        size_multiple: 1; images of any size go through without padding.
        scale: the scale factor.

    Raises:
        OptionsError: numbers of channels that contradict each other.
    """

    mean: Tensor

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        channels: tuple[int, int, int],
        upscale: int,
        img_range: float,
        rgb_mean: Sequence[float],
    ) -> None:
        super().__init__()
        num_in_ch, num_out_ch, num_feat = channels
        if not num_in_ch == num_out_ch == len(rgb_mean):
            raise OptionsError(
                f"{type(self).__name__} takes the mean of each channel away and adds it again, so that num_in_ch ({num_in_ch}), "
                f"num_out_ch ({num_out_ch}) and the number of values in rgb_mean ({len(rgb_mean)}) must be the same."
            )
        self.scale = upscale
        self.img_range = img_range
        self.register_buffer("mean", torch.tensor(rgb_mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*blocks)
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.add = ResidualAdd(num_feat)
        self.upsample = pixel_shuffle_steps(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        # convolutions on CPUs and tensor cores are fastest in this layout, and hand it on
        x = ((x - self.mean) * self.img_range).contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self.body(shallow))
        return self.conv_last(self.upsample(self.add(shallow, deep))) / self.img_range + self.mean


def number_of_blocks(state_dict: Mapping[str, Tensor], name: str = "body.{}.conv1.weight") -> int:
    """Return how many blocks have tensors, by the name of one of each block, with `{}` for its number; by default those of a `body`.

    Raises:
        KeyError: none.
    """
    if name.format(0) not in state_dict:
        raise KeyError(name.format(0))
    number = 1
    while name.format(number) in state_dict:
        number += 1
    return number
