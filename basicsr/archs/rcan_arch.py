"""RCAN (Zhang et al. 2018, arXiv 1807.02758): groups of residual blocks whose channels are weighted by what they hold.

Options and names of parameters are those of BasicSR.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.arch_util import RGB_MEAN_DIV2K, ResidualAdd, upscale_of_steps
from basicsr.archs.residual_blocks import LongSkipNetwork, number_of_blocks
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY


class ChannelAttention(nn.Module):
    """Weights in 0..1 for the channels of (n, num_feat, h, w), from their means over the whole image."""

    def __init__(self, num_feat: int, squeeze_factor: int) -> None:
        super().__init__()
        squeezed = num_feat // squeeze_factor
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),  # (n, num_feat, 1, 1)
            nn.Conv2d(num_feat, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, num_feat, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class ChannelAttentionBlock(nn.Module):
    """Residual channel attention block (RCAB): two convolutions and channel attention, scaled and added to the input."""

    def __init__(self, num_feat: int, squeeze_factor: int, res_scale: float) -> None:
        super().__init__()
        self.rcab = nn.Sequential(
            nn.Conv2d(num_feat, num_feat, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(num_feat, num_feat, 3, 1, 1),
            ChannelAttention(num_feat, squeeze_factor),
        )
        self.add = ResidualAdd(num_feat, res_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.rcab(x))


class ResidualGroup(nn.Module):
    """Blocks one after the other and a convolution, added to the input (n, num_feat, h, w)."""

    residual_group: nn.Sequential

    def __init__(self, num_feat: int, num_block: int, squeeze_factor: int, res_scale: float) -> None:
        super().__init__()
        blocks = (ChannelAttentionBlock(num_feat, squeeze_factor, res_scale) for _ in range(num_block))
        self.residual_group = nn.Sequential(*blocks)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.add = ResidualAdd(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.conv(self.residual_group(x)))


@ARCH_REGISTRY.register()
class RCAN(LongSkipNetwork):
    """RCAN. The defaults are those of BasicSR (12,614,915 parameters at x4); the network of the paper has `num_block` 20 (15,592,355).

    Channel attention sees the whole image, so that what is enlarged in tiles differs from what is enlarged at once.

    Args:
        num_in_ch: channels of the input image.
        num_out_ch: channels of the output image, the same number.
        num_feat: number of channels inside.
        num_group: number of residual groups.
        num_block: number of residual blocks in each group.
        squeeze_factor: channels inside the attention are fewer by this factor, rounded down; at most `num_feat`.
        upscale: scale factor.
        res_scale: factor of the branch in a residual block.
        img_range: the image is multiplied by this after its mean is taken away; public networks are trained with 255.
        rgb_mean: mean of the training images, one value in 0..1 for each channel.

    Attributes:
        size_multiple: 1; images of any size go through without padding.
        scale: the scale factor.

    Raises:
        OptionsError: numbers of channels that contradict each other.
    """

    def __init__(
        self,
        *,
        num_in_ch: Annotated[int, Field(ge=1)] = 3,
        num_out_ch: Annotated[int, Field(ge=1)] = 3,
        num_feat: Annotated[int, Field(ge=1)] = 64,
        num_group: Annotated[int, Field(ge=1)] = 10,
        num_block: Annotated[int, Field(ge=1)] = 16,
        squeeze_factor: Annotated[int, Field(ge=1)] = 16,
        upscale: Literal[2, 3, 4, 8] = 4,
        res_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        img_range: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 255.0,
        rgb_mean: tuple[float, ...] = RGB_MEAN_DIV2K,
    ) -> None:
        if squeeze_factor > num_feat:
            raise OptionsError(
                f"squeeze_factor ({squeeze_factor}) leaves none of the {num_feat} channels (num_feat) of RCAN to its attention. "
                f"Give at most {num_feat}."
            )
        groups = (ResidualGroup(num_feat, num_block, squeeze_factor, res_scale) for _ in range(num_group))
        super().__init__(groups, (num_in_ch, num_out_ch, num_feat), upscale, img_range, rgb_mean)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (n, num_feat, h, w) are compared in feature distillation: the groups."""
        return tuple(f"body.{i}" for i in range(len(self.body)))

    @property
    def reconstruction_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that block-wise methods treat one by one, in the order of execution: the residual blocks."""
        blocks = [len(group.residual_group) for group in self.body if isinstance(group, ResidualGroup)]
        return tuple(f"body.{i}.residual_group.{j}" for i, number in enumerate(blocks) for j in range(number))

    @property
    def usual_options(self) -> Mapping[str, Any]:
        """Those of BasicSR."""
        usual = {"img_range": 255.0, "res_scale": 1.0}
        return {**usual, "rgb_mean": RGB_MEAN_DIV2K} if self.mean.numel() == len(RGB_MEAN_DIV2K) else usual

    @classmethod
    def options_from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Derive the options of the network that a state dict belongs to from its names and shapes.

        Returns:
            Options of the constructor; without `res_scale`, `img_range` and `rgb_mean`, which leave no trace. Of the factors that
            squeeze as much, the largest.

        Raises:
            KeyError: the state dict is not one of an RCAN.
        """
        num_feat, num_in_ch = state_dict["conv_first.weight"].shape[:2]
        squeezed = state_dict["body.0.residual_group.0.rcab.3.attention.1.weight"].shape[0]
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": state_dict["conv_last.weight"].shape[0],
            "num_feat": num_feat,
            "num_group": number_of_blocks(state_dict, "body.{}.conv.weight"),
            "num_block": number_of_blocks(state_dict, "body.0.residual_group.{}.rcab.0.weight"),
            "squeeze_factor": num_feat // squeezed,
            "upscale": upscale_of_steps(state_dict, "upsample", num_feat),
        }
