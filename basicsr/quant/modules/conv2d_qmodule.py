"""Quantized two-dimensional convolution."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split, weight_slot
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.registry import QMODULE_REGISTRY


@QMODULE_REGISTRY.register("QConv2d")
class QConv2d(QModule):
    """A convolution with quantized input and weight; the bias stays in full precision.

    The zero padding is added after the quantization, as in the published methods: the border is exactly 0, whether or not
    0 is one of the values of the activation quantizer. An integer implementation has to treat the border accordingly.
    """

    source_type = "Conv2d"
    weight: Tensor
    bias: Tensor | None
    weight_quantizer: Quantizer
    act_quantizer: Quantizer

    def __init__(self, source: nn.Conv2d, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__(source, quantizers)
        self.stride, self.padding = source.stride, source.padding
        self.dilation, self.groups = source.dilation, source.groups

    @classmethod
    def slots(cls, source: nn.Module, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return a slot for the weight and one for the input."""
        refuse_split("QConv2d", split)
        if source.padding_mode != "zeros":
            raise QuantizationError(
                f"A convolution with padding_mode '{source.padding_mode}' cannot be quantized; only 'zeros' can."
            )
        return [
            weight_slot("weight_quantizer", source.out_channels),
            QuantizerSlot("act_quantizer", "activation", source.in_channels, 1),
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        return F.conv2d(
            self.act_quantizer(x),
            self.weight_quantizer(self.weight),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
