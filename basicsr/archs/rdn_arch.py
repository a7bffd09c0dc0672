"""RDN, the residual dense network (Zhang et al. 2018, arXiv 1802.08797); names of parameters are the public ones."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.arch_util import ResidualAdd, pixel_shuffle_steps, upscale_of_steps
from basicsr.archs.base import SRNetwork
from basicsr.utils.registry import ARCH_REGISTRY


class DenseLayer(nn.Module):
    """A convolution with ReLU from all features so far (n, channels, h, w) to new ones (n, num_grow_ch, h, w)."""

    def __init__(self, channels: int, num_grow_ch: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, num_grow_ch, 3, 1, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ResidualDenseBlock(nn.Module):
    """Dense layers, each of which sees the block's input and the output of all layers before it; (n, num_feat, h, w)."""

    def __init__(self, num_feat: int, num_layer: int, num_grow_ch: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(DenseLayer(num_feat + i * num_grow_ch, num_grow_ch) for i in range(num_layer))
        self.LFF = nn.Conv2d(num_feat + num_layer * num_grow_ch, num_feat, 1)
        self.add = ResidualAdd(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        # Each joined tensor is copied once and is read as it is. Features that are written into one large buffer instead save
        # no copy: a convolution takes a contiguous input, which the first channels of a larger channels_last tensor are not.
        features = x
        for layer in self.convs:
            features = torch.cat((features, layer(features)), dim=1)
        return self.add(x, self.LFF(features))


@ARCH_REGISTRY.register()
class RDN(SRNetwork):
    """RDN. The defaults are configuration B for x4 (22,271,107 parameters).

    Configuration A has `num_block` 20, `num_layer` 6 and `num_grow_ch` 32.

    Args:
        num_in_ch: channels of the input image.
        num_out_ch: channels of the output image.
        num_feat: channels between the blocks (G0 in the paper).
        num_block: number of residual dense blocks (D).
        num_layer: number of dense layers in a block (C).
        num_grow_ch: channels that each dense layer adds, and channels of the upsampler (G).
        upscale: scale factor.
        img_range: the image is multiplied by this; 255 for networks trained with EDSR-PyTorch.

    Attributes:
        size_multiple: 1; images of any size go through without padding.
        scale: the scale factor.
    """

    def __init__(
        self,
        *,
        num_in_ch: Annotated[int, Field(ge=1)] = 3,
        num_out_ch: Annotated[int, Field(ge=1)] = 3,
        num_feat: Annotated[int, Field(ge=1)] = 64,
        num_block: Annotated[int, Field(ge=1)] = 16,
        num_layer: Annotated[int, Field(ge=1)] = 8,
        num_grow_ch: Annotated[int, Field(ge=1)] = 64,
        upscale: Literal[2, 3, 4, 8] = 4,
        img_range: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
    ) -> None:
        super().__init__()
        self.scale = upscale
        self.img_range = img_range
        self.SFENet1 = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.SFENet2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.RDBs = nn.ModuleList(ResidualDenseBlock(num_feat, num_layer, num_grow_ch) for _ in range(num_block))
        self.GFF = nn.Sequential(nn.Conv2d(num_block * num_feat, num_feat, 1), nn.Conv2d(num_feat, num_feat, 3, 1, 1))
        self.add = ResidualAdd(num_feat)
        steps = pixel_shuffle_steps(upscale, num_grow_ch, in_channels=num_feat)
        self.UPNet = nn.Sequential(*steps, nn.Conv2d(num_grow_ch, num_out_ch, 3, 1, 1))

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (n, num_feat, h, w) are compared in feature distillation."""
        return self.reconstruction_blocks

    @property
    def reconstruction_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that block-wise methods treat one by one, in order: the residual dense blocks."""
        return tuple(f"RDBs.{i}" for i in range(len(self.RDBs)))

    @property
    def joined_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Names of the convolutions of each dense block, which read its features."""
        return tuple(
            (*(f"RDBs.{i}.convs.{j}.conv.0" for j in range(len(block.convs))), f"RDBs.{i}.LFF")
            for i, block in enumerate(cast("Sequence[ResidualDenseBlock]", self.RDBs))
        )

    @property
    def usual_options(self) -> Mapping[str, Any]:
        """That of EDSR-PyTorch, whose names of parameters these are."""
        return {"img_range": 255.0}

    def forward(self, x: Tensor) -> Tensor:
        # convolutions on CPUs and tensor cores are fastest in this layout, and hand it on
        shallow = self.SFENet1((x * self.img_range).contiguous(memory_format=torch.channels_last))
        features = self.SFENet2(shallow)
        outputs = []
        for block in self.RDBs:
            features = block(features)
            outputs.append(features)
        return self.UPNet(self.add(shallow, self.GFF(torch.cat(outputs, dim=1)))) / self.img_range

    @classmethod
    def options_from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Derive the options of the network that a state dict belongs to from its names and shapes.

        Returns:
            Options of the constructor; without `img_range`, which leaves no trace.

        Raises:
            KeyError: the state dict is not one of an RDN.
        """
        num_feat, num_in_ch = state_dict["SFENet1.weight"].shape[:2]
        num_grow_ch = state_dict["RDBs.0.convs.0.conv.0.weight"].shape[0]
        last_conv = max(int(key.split(".")[1]) for key in state_dict if key.startswith("UPNet."))
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": state_dict[f"UPNet.{last_conv}.weight"].shape[0],
            "num_feat": num_feat,
            "num_block": state_dict["GFF.0.weight"].shape[1] // num_feat,
            "num_layer": (state_dict["RDBs.0.LFF.weight"].shape[1] - num_feat) // num_grow_ch,
            "num_grow_ch": num_grow_ch,
            "upscale": upscale_of_steps(state_dict, "UPNet", num_grow_ch),
        }
