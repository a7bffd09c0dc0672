"""MSRResNet: the generator of SRGAN (Ledig et al. 2017, arXiv 1609.04802) without normalisation, as BasicSR and ESRGAN have it.

Options and names of parameters are those of BasicSR. DAQ, DDTB, QuantSR and the first version of ODM publish on networks of this kind.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.arch_util import ResidualAdd
from basicsr.archs.residual_blocks import ResidualBlock, ResidualNetwork, number_of_blocks
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

_SLOPE = 0.1
_INITIAL_SHARE = 0.1
"""Of the usual spread of random weights, so that training sets out from nearly bilinear enlargement (arXiv 1809.00219, section 3.4)."""


@ARCH_REGISTRY.register()
class MSRResNet(ResidualNetwork):
    """Residual blocks of two convolutions; the output is added to the image enlarged bilinearly.

    The defaults are the network of BasicSR for x4 (1,517,571 parameters). Images go in and out in 0..1 without a shift of their mean.

    Args:
        num_in_ch: channels of the input image.
        num_out_ch: channels of the output image, the same number.
        num_feat: number of channels inside.
        num_block: number of residual blocks.
        upscale: scale factor.

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
        num_block: Annotated[int, Field(ge=1)] = 16,
        upscale: Literal[2, 3, 4] = 4,
    ) -> None:
        super().__init__()
        if num_in_ch != num_out_ch:
            raise OptionsError(
                f"MSRResNet adds its output to the enlarged image, so that num_in_ch ({num_in_ch}) and num_out_ch ({num_out_ch}) "
                "must be the same."
            )
        self.scale = upscale
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(ResidualBlock(num_feat, res_scale=1.0) for _ in range(num_block)))
        factor = 3 if upscale == 3 else 2
        self.upconv1 = nn.Conv2d(num_feat, num_feat * factor**2, 3, 1, 1)
        if upscale == 4:
            self.upconv2 = nn.Conv2d(num_feat, num_feat * factor**2, 3, 1, 1)
        self.pixel_shuffle = nn.PixelShuffle(factor)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        self.add = ResidualAdd(num_out_ch)
        self._start_small()

    def _start_small(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight)
                module.weight.data.mul_(_INITIAL_SHARE)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        # convolutions on CPUs and tensor cores are fastest in this layout, and hand it on
        image = x.contiguous(memory_format=torch.channels_last)
        feature = self.body(F.leaky_relu(self.conv_first(image), _SLOPE))
        feature = F.leaky_relu(self.pixel_shuffle(self.upconv1(feature)), _SLOPE)
        if self.scale == 4:
            feature = F.leaky_relu(self.pixel_shuffle(self.upconv2(feature)), _SLOPE)
        base = F.interpolate(image, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        return self.add(base, self.conv_last(F.leaky_relu(self.conv_hr(feature), _SLOPE)))

    @classmethod
    def options_from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Derive the options of the network that a state dict belongs to from its names and shapes.

        Args:
            state_dict: in the layout of this class, which is that of BasicSR.

        Returns:
            Options of the constructor; all of them leave a trace.

        Raises:
            KeyError: the state dict is not one of an MSRResNet.
        """
        num_feat, num_in_ch = state_dict["conv_first.weight"].shape[:2]
        factor = math.isqrt(state_dict["upconv1.weight"].shape[0] // num_feat)
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": state_dict["conv_last.weight"].shape[0],
            "num_feat": num_feat,
            "num_block": number_of_blocks(state_dict),
            "upscale": factor**2 if "upconv2.weight" in state_dict else factor,
        }
