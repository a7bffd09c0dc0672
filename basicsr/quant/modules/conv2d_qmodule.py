"""Quantized two-dimensional convolution."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.quant.integers.containers import ActivationContainer, activation_container
from basicsr.quant.integers.products import offset_codes, product_of
from basicsr.quant.integers.sums import ActivationCodes, WeightCodes, affine_sum
from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split, weight_slot
from basicsr.quant.modules.cost import Cost, bits_of, weighted_cost
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.registry import QMODULE_REGISTRY


@QMODULE_REGISTRY.register("QConv2d")
class QConv2d(QModule[nn.Conv2d]):
    """A convolution with quantized input and weight; the bias stays in full precision.

    The zero padding is added after the quantization, as in the published methods: the border is exactly 0, whether or not
    0 is one of the values of the activation quantizer. An integer implementation has to treat the border accordingly.
    """

    source_type = "Conv2d"
    scales_its_input = True
    weight: Tensor
    bias: Tensor | None
    weight_quantizer: Quantizer
    act_quantizer: Quantizer

    def __init__(self, source: nn.Conv2d, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__(source, quantizers)
        self.stride, self.padding = source.stride, source.padding
        self.dilation, self.groups = source.dilation, source.groups

    @classmethod
    def slots(cls, source: nn.Conv2d, split: tuple[str, ...], /) -> list[QuantizerSlot]:
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

    def cost(self, _inputs: tuple[Tensor, ...], output: Tensor, /) -> Cost:
        """Return one MAC for each output value and tap."""
        return weighted_cost(
            "conv", self.weight, output, [(bits_of(self.weight_quantizer), bits_of(self.act_quantizer))]
        )

    def integer_twin(self) -> nn.Module:
        """Return the convolution in integers; refused with groups and with padding by name."""
        return IntegerConv2d(self)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:  # noqa: ARG002 -- a convolution is always in integers
        """Return the convolution of 8-bit codes."""
        return RuntimeConv2d(self)

    def patches(self, x: Tensor, /) -> Tensor | None:
        """Return (N, C, H, W) as (N * places of the kernel, groups, C / groups * taps); None with padding by name."""
        if isinstance(self.padding, str):
            return None
        columns = F.unfold(x, self.weight.shape[2:], self.dilation, self.padding, self.stride)  # N, C * taps, places
        return columns.transpose(1, 2).reshape(-1, self.groups, columns.shape[1] // self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        return F.conv2d(
            self.act_quantizer(self.scaled(x)),
            self.weight_quantizer(self.weight),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class IntegerConv2d(nn.Module):
    """Integer twin of QConv2d; without groups."""

    def __init__(self, source: QConv2d) -> None:
        super().__init__()
        if source.groups != 1 or isinstance(source.padding, str):
            raise QuantizationError("Integer convolutions know neither groups nor padding by name.")
        self.activation = ActivationCodes(source.act_quantizer)
        self.weight = WeightCodes(source.weight_quantizer, source.weight)
        self.bias = source.bias
        self.kernel_size = tuple(source.weight.shape[2:])
        self.stride, self.padding, self.dilation = source.stride, source.padding, source.dilation

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        codes = self.activation(x)
        patches = self._patches(codes)  # N, H', W', C * kernel
        inside = self._patches(torch.ones_like(codes[:1]))
        weight = self.weight.codes.flatten(1).T.contiguous()  # C * kernel, out
        y = affine_sum(
            self.activation.grid,
            self.weight.grid,
            patches @ weight,
            patches.sum(-1, keepdim=True),
            inside @ weight,
            inside.sum(-1, keepdim=True),
        )
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).permute(0, 3, 1, 2).contiguous()  # N, out, H', W'

    def _patches(self, codes: Tensor) -> Tensor:
        """Return what each output pixel sees, zeros where it sees the padding: N, H', W', C * kernel."""
        vertical, horizontal = self.padding
        padded = F.pad(codes, (horizontal, horizontal, vertical, vertical))
        rows, columns = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                padded.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        taps = [
            padded[
                :,
                :,
                i * self.dilation[0] : i * self.dilation[0] + (rows - 1) * self.stride[0] + 1 : self.stride[0],
                j * self.dilation[1] : j * self.dilation[1] + (columns - 1) * self.stride[1] + 1 : self.stride[1],
            ]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        ]
        return torch.stack(taps, dim=2).flatten(1, 2).permute(0, 2, 3, 1)  # N, C, taps, H', W' -> N, H', W', C * taps


def _any_container(lower: float, upper: float, bits: int) -> ActivationContainer:
    """Return the grid that a convolution with padding has for such an input, so that both can share codes, or else one without zero."""
    return activation_container(lower, upper, bits) or offset_codes(lower, upper, bits)


class RuntimeConv2d(nn.Module):
    """Runtime twin of QConv2d. Near the border, the shift of an input that has no code for zero is not compensated."""

    def __init__(self, source: QConv2d) -> None:
        super().__init__()
        container = _any_container if source.padding in ((0, 0), "valid") else activation_container
        self.product = product_of(source.act_quantizer, source.weight_quantizer, source.weight, source.bias, container)
        self.geometry = (source.stride, source.padding, source.dilation, source.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        stride, padding, dilation, groups = self.geometry
        inputs, weight = self.product.inputs(x), self.product.weight()
        return F.conv2d(inputs, weight, self.product.bias, stride, padding, dilation, groups)
