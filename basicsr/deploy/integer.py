"""An exact integer reference: layers that multiply integer codes and accumulate in int32.

With activations x = c_x s_x + l_x and weights w = c_w s_w + l_w (codes c, steps s, lower bounds l) a sum over K products is

    sum x w = s_x s_w sum c_x c_w + s_x l_w sum c_x + l_x s_w sum c_w + K l_x l_w,

so that three integer sums give it without any zero point. Zeros that a convolution pads with are no code of the activation: they
count in none of the sums, which near the border therefore run over fewer taps. So no bound has to move. This is the oracle for
every other runtime, written for clarity; it is not fast.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.conv2d_qmodule import QConv2d
from basicsr.quant.modules.linear_qmodule import QLinear, QSplitLinear
from basicsr.quant.modules.matmul_qmodule import QMatMul
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError


def integer_network(network: nn.Module) -> nn.Module:
    """Return a copy of a calibrated quantized network whose quantized layers compute in integers.

    Args:
        network: all its quantizers have a static uniform grid; those of activations are per tensor.

    Raises:
        QuantizationError: a quantizer has no such grid.
    """
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, QModule):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _INTEGER_MODULES[type(module)](module))
    return network


class Grid:
    """The values that the codes of one quantizer stand for: code * step + lower, in float64.

    Args:
        quantizer: a calibrated quantizer with a static uniform grid.
        weight: what it quantizes, if that is a weight.
    """

    def __init__(self, quantizer: Quantizer, weight: Tensor | None = None) -> None:
        lower, upper = (bound.detach().double() for bound in quantizer.affine_bounds(weight))
        self.lower, self.step = lower, (upper - lower) / quantizer.spec.max_code


class ActivationCodes:
    """Turns activations into int32 codes on a per-tensor grid."""

    def __init__(self, quantizer: Quantizer) -> None:
        if quantizer.spec.channel_axis is not None:
            raise QuantizationError(
                f"The quantizer '{quantizer.name}' is per channel; integer layers need per-tensor activations."
            )
        self._quantizer = quantizer
        self.grid = Grid(quantizer)

    def __call__(self, x: Tensor) -> Tensor:
        return self._quantizer.codes(x).to(torch.int32)


class WeightCodes:
    """The int32 codes of a weight (rows first), their sums over each row, and their grid."""

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        self.codes = quantizer.codes(weight.detach()).to(torch.int32)
        self.grid = Grid(quantizer, weight.detach())


def affine_sum(x: Grid, w: Grid, products: Tensor, x_sums: Tensor, w_sums: Tensor, terms: Tensor | int) -> Tensor:
    """Return sum x w as float64 from the integer sums of the head of this file; all broadcast against `products`."""
    return (
        x.step * w.step * products + x.step * w.lower * x_sums + x.lower * w.step * w_sums + terms * x.lower * w.lower
    )


class IntegerLinear(nn.Module):
    """Integer twin of QLinear."""

    def __init__(self, source: QLinear) -> None:
        super().__init__()
        self.activation = ActivationCodes(source.act_quantizer)
        self.weight = WeightCodes(source.weight_quantizer, source.weight)
        self.bias = source.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return _integer_linear(self.activation, self.weight, self.bias, x)


class IntegerSplitLinear(nn.Module):
    """Integer twin of QSplitLinear."""

    def __init__(self, source: QSplitLinear) -> None:
        super().__init__()
        parts = [source.get_submodule(part) for part in source.split]
        self.activations = [ActivationCodes(part.act_quantizer) for part in parts]
        weights = source.weights().values()
        self.weights = [WeightCodes(part.weight_quantizer, w) for part, w in zip(parts, weights, strict=True)]
        self.biases = [None] * len(parts) if source.bias is None else list(source.bias.chunk(len(parts)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        parts = zip(self.activations, self.weights, self.biases, strict=True)
        return torch.cat([_integer_linear(activation, weight, bias, x) for activation, weight, bias in parts], dim=-1)


class IntegerMatMul(nn.Module):
    """Integer twin of QMatMul."""

    def __init__(self, source: QMatMul) -> None:
        super().__init__()
        self.a, self.b = ActivationCodes(source.a_quantizer), ActivationCodes(source.b_quantizer)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        left, right = self.a(a), self.b(b)
        rows, columns = left.sum(-1, keepdim=True), right.sum(-2, keepdim=True)  # ..., n, 1 and ..., 1, m
        return affine_sum(self.a.grid, self.b.grid, left @ right, rows, columns, a.shape[-1]).to(a.dtype)


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


def _integer_linear(activation: ActivationCodes, weight: WeightCodes, bias: Tensor | None, x: Tensor) -> Tensor:
    codes = activation(x)
    products = codes @ weight.codes.T
    x_sums, w_sums = codes.sum(-1, keepdim=True), weight.codes.sum(1)  # ..., 1 and out_features
    y = affine_sum(activation.grid, weight.grid, products, x_sums, w_sums, x.shape[-1])
    return (y if bias is None else y + bias).to(x.dtype)


_INTEGER_MODULES: dict[type[QModule], Callable[..., nn.Module]] = {
    QLinear: IntegerLinear,
    QSplitLinear: IntegerSplitLinear,
    QMatMul: IntegerMatMul,
    QConv2d: IntegerConv2d,
}
