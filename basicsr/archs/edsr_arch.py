"""EDSR (Lim et al. 2017, arXiv 1707.02921): residual blocks of two convolutions without normalisation.

Options and names of parameters are those of BasicSR; files in the layout of EDSR-PyTorch load as well.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from basicsr.archs.arch_util import RGB_MEAN_DIV2K, upscale_of_steps
from basicsr.archs.residual_blocks import LongSkipNetwork, ResidualBlock, number_of_blocks
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import ARCH_REGISTRY

_MEAN_TOLERANCE = 5e-4  # of a mean in 0..1: above the rounding of half precision, below the distance of other data sets
_LARGE = 256  # channels from which on residual blocks are scaled
_NAMES_OF_EDSR_PYTORCH = (
    (r"head\.0\.", "conv_first."),
    (r"body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"body\.\d+\.(?=weight$|bias$)", "conv_after_body."),
    (r"tail\.0\.", "upsample."),
    (r"tail\.1\.", "conv_last."),
)


@ARCH_REGISTRY.register()
class EDSR(LongSkipNetwork):
    """EDSR. The defaults are the baseline network for x4 (1,517,571 parameters).

    The large network has `num_feat` 256, `num_block` 32 and `res_scale` 0.1.

    Args:
        num_in_ch: channels of the input image.
        num_out_ch: channels of the output image, the same number.
        num_feat: number of channels inside.
        num_block: number of residual blocks.
        upscale: scale factor.
        res_scale: factor of the convolutions' output in a residual block.
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
        num_block: Annotated[int, Field(ge=1)] = 16,
        upscale: Literal[2, 3, 4, 8] = 4,
        res_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        img_range: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 255.0,
        rgb_mean: tuple[float, ...] = RGB_MEAN_DIV2K,
    ) -> None:
        blocks = (ResidualBlock(num_feat, res_scale) for _ in range(num_block))
        super().__init__(blocks, (num_in_ch, num_out_ch, num_feat), upscale, img_range, rgb_mean)

    @property
    def usual_options(self) -> Mapping[str, Any]:
        """Those of EDSR-PyTorch and BasicSR, of which networks with 256 channels scale their residuals."""
        res_scale = 0.1 if len(self.conv_first.weight) >= _LARGE else 1.0
        usual = {"img_range": 255.0, "res_scale": res_scale}
        return {**usual, "rgb_mean": RGB_MEAN_DIV2K} if self.mean.numel() == len(RGB_MEAN_DIV2K) else usual

    def remap_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict in the layout of EDSR-PyTorch (sub_mean, head, body, tail, add_mean) in this one.

        Any other state dict is returned as it is. The mean shifts, which are no parameters here, are checked and left out.

        Raises:
            CheckpointError: the file was made for another range or mean of the images.
        """
        if "head.0.weight" not in state_dict:
            return dict(state_dict)
        self._check_mean_shift(state_dict, "sub_mean", -1)
        self._check_mean_shift(state_dict, "add_mean", 1)
        remapped = {}
        for key, value in state_dict.items():
            if not key.startswith(("sub_mean.", "add_mean.")):
                for pattern, name in _NAMES_OF_EDSR_PYTORCH:
                    key, found = re.subn(f"^{pattern}", name, key)
                    if found:
                        break
                remapped[key] = value
        return remapped

    def _check_mean_shift(self, state_dict: Mapping[str, Tensor], name: str, sign: int) -> None:
        """Compare a mean shift, the 1 x 1 convolution x + sign * img_range * mean, with what this network does."""
        mean = self.mean.flatten().cpu()
        bias = state_dict.get(f"{name}.bias", sign * self.img_range * mean)
        weight = state_dict.get(f"{name}.weight", torch.eye(len(mean))).squeeze()
        shift = sign * bias.float() / self.img_range
        fits = shift.shape == mean.shape and torch.allclose(shift, mean, rtol=0, atol=_MEAN_TOLERANCE)
        if not fits or not torch.equal(weight.float(), torch.eye(len(mean)).squeeze()):
            raise CheckpointError(
                f"its {name} shifts the colours by {_rounded(bias)} with the matrix {_rounded(weight)}, but img_range "
                f"{self.img_range:g} and rgb_mean {_rounded(mean)} of the options need {_rounded(sign * self.img_range * mean)} "
                "with the identity. Give the img_range (called rgb_range there) and rgb_mean that the network was trained with."
            )

    @classmethod
    def options_from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Derive the options of the network that a state dict belongs to from its names and shapes.

        Args:
            state_dict: in the layout of this class; see `remap_state_dict`.

        Returns:
            Options of the constructor; without `res_scale`, `img_range` and `rgb_mean`, which leave no trace.

        Raises:
            KeyError: the state dict is not one of an EDSR.
        """
        num_feat, num_in_ch = state_dict["conv_first.weight"].shape[:2]
        if "conv_after_body.weight" not in state_dict:  # other networks have blocks of the same names
            raise KeyError("conv_after_body.weight")
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": state_dict["conv_last.weight"].shape[0],
            "num_feat": num_feat,
            "num_block": number_of_blocks(state_dict),
            "upscale": upscale_of_steps(state_dict, "upsample", num_feat),
        }


def _rounded(values: Tensor) -> list[Any]:
    return [round(v, 4) for v in values.flatten().tolist()]
