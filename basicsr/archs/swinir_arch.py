"""SwinIR for super-resolution: light and classical networks (Liang et al. 2021, arXiv 2108.10257).

Names of parameters and their order are those of the official implementation; its buffers `attn_mask` and
`relative_position_index` follow from the sizes and are not part of the state dict here.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.any_size_swin import AnySizeSwinLayers
from basicsr.archs.arch_util import RGB_MEAN_DIV2K, ResidualAdd, mirror_to_size, pixel_shuffle_steps, upscale_of_steps
from basicsr.archs.base import SRNetwork
from basicsr.archs.swin_layers import ResidualSwinGroup, SwinLayer, SwinLayers, TokenNorm, to_map, to_tokens
from basicsr.archs.window_attention import Order
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.signature import NO_EFFECT

Upsampler = Literal["pixelshuffledirect", "pixelshuffle", "nearest+conv"]
ResidualConnection = Literal["1conv", "3conv"]
_Depth = Annotated[int, Field(le=1000)]

_UPSAMPLER_CHANNELS = 64


@ARCH_REGISTRY.register()
class SwinIR(SRNetwork):
    """SwinIR. The defaults are the light network for x4 (929,628 parameters).

    Args:
        upscale: scale factor; 3 or a power of two (`pixelshuffle`), 2 or 4 (`nearest+conv`), any
            (`pixelshuffledirect`).
        in_chans: channels of the image.
        img_size: size of the training patches in LR pixels in official options; any size is accepted at any time.
        window_size: side of an attention window, even; the attention maps of one take the fourth power of it.
        img_range: the image is multiplied by this after its mean is taken away.
        depths: number of Swin layers in each residual group.
        embed_dim: number of channels.
        num_heads: number of attention heads in each residual group; divides `embed_dim`.
        mlp_ratio: hidden channels of the MLP by `embed_dim`.
        qkv_bias: whether q, k and v have a bias.
        drop_path_rate: probability to drop the branch of the last layer in training, rising linearly from 0 in the
            first one (0.1 in official training).
        upsampler: `pixelshuffledirect` for light, `pixelshuffle` for classical, `nearest+conv` for real-world networks.
        resi_connection: convolutions at the end of each group: one, or three with a quarter of the channels inside.

    Attributes:
        size_multiple: the forward pass is cheapest for heights and widths that are multiples of this.
        scale: the scale factor.

    Raises:
        OptionsError: options that contradict each other.
    """

    mean: Tensor
    layers: Sequence[ResidualSwinGroup]  # an nn.ModuleList

    def __init__(
        self,
        *,
        upscale: int = 4,
        in_chans: Annotated[int, Field(ge=1)] = 3,
        img_size: Annotated[int, NO_EFFECT] = 64,
        window_size: Annotated[int, Field(le=64)] = 8,
        img_range: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        depths: Annotated[tuple[_Depth, ...], Field(max_length=1000)] = (6, 6, 6, 6),
        embed_dim: Annotated[int, Field(ge=1)] = 60,
        num_heads: tuple[int, ...] = (6, 6, 6, 6),
        mlp_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0,
        qkv_bias: bool = True,
        drop_path_rate: Annotated[float, NO_EFFECT] = 0.0,
        upsampler: Upsampler = "pixelshuffledirect",
        resi_connection: ResidualConnection = "1conv",
    ) -> None:
        super().__init__()
        _check_options(upscale, img_size, window_size, depths, embed_dim, num_heads, upsampler, drop_path_rate)
        self.scale = self.upscale = upscale
        self.size_multiple = window_size
        self.img_range = img_range
        self.upsampler = upsampler
        mean = torch.tensor(RGB_MEAN_DIV2K if in_chans == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = TokenNorm(embed_dim)
        drop_rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        groups = nn.ModuleList()
        for depth, heads in zip(depths, num_heads, strict=True):
            swin_layers = []
            for i in range(depth):
                order: Order = "shifted" if i % 2 else "aligned"
                rate = drop_rates.pop(0)
                swin_layers.append(SwinLayer(embed_dim, window_size, heads, order, mlp_ratio, qkv_bias, rate))
            layers, conv = SwinLayers(swin_layers, window_size), _residual_conv(embed_dim, resi_connection)
            groups.append(ResidualSwinGroup(layers, conv, ResidualAdd(embed_dim, channel_axis=-1)))
        self.layers = cast("Sequence[ResidualSwinGroup]", groups)
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _residual_conv(embed_dim, resi_connection)
        self.add = ResidualAdd(embed_dim)
        self._add_upsampler(embed_dim, in_chans)
        self.apply(_initialise)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (n, tokens, embed_dim) are compared in feature distillation."""
        return tuple(f"layers.{i}" for i in range(len(self.layers)))

    @property
    def reconstruction_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that block-wise methods treat one by one, in the order of execution: the Swin layers."""
        return tuple(
            f"layers.{i}.residual_group.blocks.{j}"
            for i, group in enumerate(self.layers)
            for j in range(len(group.residual_group.blocks))
        )

    @property
    def usual_options(self) -> Mapping[str, Any]:
        """Those of the official networks for super-resolution."""
        return {"img_range": 1.0}

    def for_any_size(self) -> nn.Module:
        """Return a twin that shares the parameters and can be traced into a graph for images of any size; see any_size_swin."""
        twin = copy.copy(self)
        groups = (
            ResidualSwinGroup(_for_any_size(group.residual_group), group.conv, group.add) for group in self.layers
        )
        twin._modules = {**self._modules, "layers": nn.ModuleList(groups)}
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge images.

        Args:
            x: (n, in_chans, h, w) with values 0..1; continued by reflection to multiples of the window inside.

        Returns:
            (n, in_chans, h * upscale, w * upscale), not clipped.
        """
        h, w = x.shape[-2:]
        padded_h, padded_w = (-(-side // self.size_multiple) * self.size_multiple for side in (h, w))
        x = mirror_to_size(x, padded_h, padded_w, repeat_edge=False)
        # channels_last is the layout of tokens: from here on, maps and tokens are views of each other
        x = ((x - self.mean) * self.img_range).contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self.forward_features(shallow))
        y = self._enlarge(self.add(shallow, deep)) / self.img_range + self.mean
        return y[..., : h * self.upscale, : w * self.upscale]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the deep features of shallow ones, both (n, embed_dim, h, w) with h and w multiples of the window."""
        size = (x.shape[2], x.shape[3])
        tokens = self.patch_embed(to_tokens(x))
        for layer in self.layers:
            tokens = layer(tokens, size)
        return to_map(self.norm(tokens), size)

    def _add_upsampler(self, embed_dim: int, in_chans: int) -> None:
        if self.upsampler == "pixelshuffledirect":
            conv = nn.Conv2d(embed_dim, in_chans * self.upscale**2, 3, 1, 1)
            self.upsample = nn.Sequential(conv, nn.PixelShuffle(self.upscale))
            return
        channels = _UPSAMPLER_CHANNELS
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, channels, 3, 1, 1), nn.LeakyReLU())
        if self.upsampler == "pixelshuffle":
            self.upsample = pixel_shuffle_steps(self.upscale, channels)
        else:
            self.conv_up1 = nn.Conv2d(channels, channels, 3, 1, 1)
            if self.upscale == 4:
                self.conv_up2 = nn.Conv2d(channels, channels, 3, 1, 1)
            self.conv_hr = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv_last = nn.Conv2d(channels, in_chans, 3, 1, 1)

    def _enlarge(self, x: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        for conv in (self.conv_up1, self.conv_up2) if self.upscale == 4 else (self.conv_up1,):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))

    @classmethod
    def remap_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict without the buffers that official files hold and that follow from the sizes."""
        recomputed = ("attn_mask", "relative_position_index")
        return {key: value for key, value in state_dict.items() if not key.endswith(recomputed)}

    @classmethod
    def options_from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Derive the options of the network that a state dict belongs to from its names and shapes.

        Returns:
            Options of the constructor; without `img_size`, `img_range` and `drop_path_rate`, which leave no trace.

        Raises:
            KeyError: the state dict is not one of a SwinIR.
        """
        embed_dim, in_chans = state_dict["conv_first.weight"].shape[:2]
        depths: list[int] = []
        heads: list[int] = []
        while f"layers.{len(depths)}.residual_group.blocks.0.norm1.weight" in state_dict:
            group = f"layers.{len(depths)}.residual_group.blocks"
            depth = 0
            while f"{group}.{depth}.norm1.weight" in state_dict:
                depth += 1
            depths.append(depth)
            heads.append(state_dict[f"{group}.0.attn.relative_position_bias_table"].shape[1])
        block = "layers.0.residual_group.blocks.0"
        table = state_dict[f"{block}.attn.relative_position_bias_table"]  # (2 * window - 1)**2, heads
        upsampler, upscale = _upsampler_of(state_dict, in_chans)
        return {
            "upscale": upscale,
            "in_chans": in_chans,
            "window_size": (math.isqrt(table.shape[0]) + 1) // 2,
            "depths": tuple(depths),
            "embed_dim": embed_dim,
            "num_heads": tuple(heads),
            "mlp_ratio": state_dict[f"{block}.mlp.fc1.bias"].shape[0] / embed_dim,
            "qkv_bias": f"{block}.attn.qkv.bias" in state_dict,
            "upsampler": upsampler,
            "resi_connection": "1conv" if "conv_after_body.weight" in state_dict else "3conv",
        }


def _check_options(
    upscale: int,
    img_size: int,
    window_size: int,
    depths: tuple[int, ...],
    embed_dim: int,
    num_heads: tuple[int, ...],
    upsampler: Upsampler,
    drop_path_rate: float,
) -> None:
    powers_of_two = upscale > 0 and upscale & (upscale - 1) == 0
    allowed = {
        "pixelshuffledirect": upscale >= 1,
        "pixelshuffle": powers_of_two or upscale == 3,
        "nearest+conv": upscale in (2, 4),
    }
    if not allowed[upsampler]:
        raise OptionsError(f"SwinIR has no x{upscale} network with the upsampler '{upsampler}'.")
    if not depths or min(depths) < 1 or len(depths) != len(num_heads):
        raise OptionsError(
            f"SwinIR needs a depth of at least 1 and a number of heads for each group, not depths {list(depths)} "
            f"with num_heads {list(num_heads)}."
        )
    if min(num_heads) < 1 or any(embed_dim % heads for heads in num_heads):
        raise OptionsError(f"embed_dim {embed_dim} of SwinIR is not a multiple of all num_heads {list(num_heads)}.")
    if window_size < 2 or window_size % 2:
        raise OptionsError(f"window_size of SwinIR is {window_size}, but must be even and at least 2.")
    if img_size <= window_size:
        raise OptionsError(
            f"img_size {img_size} of SwinIR must exceed window_size {window_size}: official networks built for a "
            "single window do not shift it, which is not supported."
        )
    if not 0 <= drop_path_rate < 1:
        raise OptionsError(f"drop_path_rate of SwinIR is {drop_path_rate}, but must be at least 0 and below 1.")


def _for_any_size(layers: SwinLayers) -> SwinLayers:
    """Return the form of Swin layers for any size; what takes their place, such as a kernel, is of that form by itself."""
    return AnySizeSwinLayers(layers) if isinstance(layers, SwinLayers) else layers


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _residual_conv(dim: int, kind: ResidualConnection) -> nn.Module:
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, 1, 1),
    )


def _upsampler_of(state_dict: Mapping[str, Tensor], in_chans: int) -> tuple[Upsampler, int]:
    """Return the upsampler and the scale factor that the names and shapes of the last layers tell."""
    if "conv_before_upsample.0.weight" not in state_dict:
        return "pixelshuffledirect", math.isqrt(state_dict["upsample.0.weight"].shape[0] // in_chans)
    if "conv_up1.weight" in state_dict:
        return "nearest+conv", 4 if "conv_up2.weight" in state_dict else 2
    return "pixelshuffle", upscale_of_steps(state_dict, "upsample", _UPSAMPLER_CHANNELS)
