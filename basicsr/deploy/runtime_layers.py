"""Layers as a runtime computes them: integer convolutions and linear layers between operators that give and take codes.

Everything is written so that its graph holds what runtimes fuse into integer kernels: a clip, an addition, a pair of
QuantizeLinear and DequantizeLinear in front of the layer, and int8 weights with a step for each row. The values are those of the
quantized network; see `containers` for what 8 bits cannot hold exactly.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.deploy.containers import (
    ActivationContainer,
    WeightContainer,
    activation_container,
    largest_codes,
    weight_container,
)
from basicsr.deploy.freeze import freeze_weight
from basicsr.deploy.integer_operators import from_int8, through_uint8
from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.conv2d_qmodule import QConv2d
from basicsr.quant.modules.linear_qmodule import QLinear, QSplitLinear
from basicsr.quant.modules.matmul_qmodule import QMatMul
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError


def eight_bit_network(network: nn.Module, *, integer_linear: bool = True) -> nn.Module:
    """Return a copy of a calibrated quantized network whose quantized layers are those of this file.

    Args:
        network: the network; a full-precision one is copied as it is.
        integer_linear: compute linear layers in integers, as convolutions are; otherwise in floating point with the same
            values, which is faster where a processor has no instructions for small products of integers.

    Raises:
        QuantizationError: an activation quantizer has no static uniform grid, or a quantizer is not calibrated.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for name, module in list(network.named_modules()):
        if isinstance(module, QModule):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _runtime_module(module, integer_linear))
    return network


def _runtime_module(source: QModule, integer_linear: bool) -> nn.Module:
    if isinstance(source, QConv2d):
        return RuntimeConv2d(source)
    if isinstance(source, QLinear | QSplitLinear):
        return RuntimeLinear(source, integer_linear)
    if isinstance(source, QMatMul):
        return RuntimeMatMul(source)
    raise QuantizationError(
        f"A {type(source).__name__} has no form for runtimes. Leave it in full precision with 'quantization:exclude' to export the network."
    )


class GridValues(nn.Module):
    """Rounds activations to the values of a quantizer, in floating point: for products that are not computed in integers.

    Args:
        quantizer: calibrated, with a static uniform grid.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.lower, self.upper, self.step = _grid(quantizer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values, in the shape of `x`."""
        codes = ((x.clamp(self.lower, self.upper) - self.lower) * (1 / self.step)).round()
        return codes * self.step + self.lower


class ContainedValues(nn.Module):
    """Rounds activations to the values of a quantizer, moved onto the grid of a container, through 8-bit codes.

    Args:
        quantizer: calibrated and per tensor, with a static uniform grid.
        container: the grid; its step is that of the quantizer or a whole fraction of it.
    """

    def __init__(self, quantizer: Quantizer, container: ActivationContainer) -> None:
        super().__init__()
        self.lower, self.upper, self.step = _grid(quantizer)
        self.container = container

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values plus `container.shift`, in the shape of `x`."""
        shift, x = self.container.shift, x.clamp(self.lower, self.upper)
        if round(self.step / self.container.step) == 1:  # both round at the same places
            x = x + shift if shift else x
        else:
            x = ((x - self.lower) * (1 / self.step)).round() * self.step + (self.lower + shift)
        return through_uint8(x, self.container.step, self.container.zero_point)


class FloatWeight(nn.Module):
    """A weight that stays in floating point, at most rounded to the values of its quantizer."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self) -> Tensor:
        """Return the weight."""
        return self.values


class IntegerWeight(nn.Module):
    """A weight of int8 codes with a step for each row.

    Attributes:
        moved: largest distance of a value from that of the quantizer, in steps of the quantizer.
    """

    def __init__(self, weight: WeightContainer) -> None:
        super().__init__()
        self.moved = weight.moved
        self.register_buffer("codes", weight.codes)
        self.register_buffer("steps", weight.steps)

    def forward(self) -> Tensor:
        """Return the values of the codes, float32."""
        return from_int8(self.codes, self.steps)


class Product(nn.Module):
    """What a linear layer or a convolution multiplies: its input on a grid, its weight, and a bias that compensates the shift.

    Args:
        inputs: applied to the input of the layer.
        weight: gives the weight.
        bias: (rows,) or None.
        shift: by how much `inputs` moves the values.
    """

    def __init__(
        self, inputs: nn.Module, weight: FloatWeight | IntegerWeight, bias: Tensor | None, shift: float
    ) -> None:
        super().__init__()
        self.inputs, self.weight = inputs, weight
        if shift:
            correction = -shift * weight().double().flatten(1).sum(1)
            bias = (correction if bias is None else bias.double() + correction).float()
        self.register_buffer("bias", bias)


class RuntimeConv2d(nn.Module):
    """Runtime twin of QConv2d. Near the border, the shift of an input that has no code for zero is not compensated."""

    def __init__(self, source: QConv2d) -> None:
        super().__init__()
        container = _offset_codes if source.padding in ((0, 0), "valid") else activation_container
        self.product = _product(source.act_quantizer, source.weight_quantizer, source.weight, source.bias, container)
        self.geometry = (source.stride, source.padding, source.dilation, source.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        return F.conv2d(self.product.inputs(x), self.product.weight(), self.product.bias, *self.geometry)


class RuntimeLinear(nn.Module):
    """Runtime twin of QLinear, and of QSplitLinear: one product, or one for each part that rounds its input differently."""

    def __init__(self, source: QLinear | QSplitLinear, integers: bool) -> None:
        super().__init__()
        parts = [source] if isinstance(source, QLinear) else [source.get_submodule(part) for part in source.split]
        biases = [None] * len(parts) if source.bias is None else source.bias.chunk(len(parts))
        products = [
            _product(part.act_quantizer, part.weight_quantizer, weight, bias, _offset_codes if integers else None)
            for part, weight, bias in zip(parts, source.weight.chunk(len(parts)), biases, strict=True)
        ]
        self.products = nn.ModuleList(products)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        projections = self.projections(x)
        return projections[0] if len(projections) == 1 else torch.cat(projections, dim=-1)

    def projections(self, x: Tensor) -> list[Tensor]:
        """Return the output of each part, (..., out_features / parts)."""
        return [F.linear(product.inputs(x), product.weight(), product.bias) for product in self.products]


class RuntimeMatMul(nn.Module):
    """Runtime twin of QMatMul, in floating point: K is the dimension of an attention head, too small to gain by integers."""

    def __init__(self, source: QMatMul) -> None:
        super().__init__()
        self.a, self.b = _values(source.a_quantizer), _values(source.b_quantizer)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        return self.a(a) @ self.b(b)


def _grid(quantizer: Quantizer) -> tuple[float, float, float] | tuple[Tensor, Tensor, Tensor]:
    """Return lower bound, upper bound and step: numbers, or where there is one for each channel, tensors that broadcast."""
    lower, upper = (bound.detach().float() for bound in quantizer.affine_bounds())
    step = (upper - lower) / quantizer.spec.max_code
    if lower.dim() == 0:
        return lower.item(), upper.item(), step.item()
    shape = (-1, 1, 1) if quantizer.spec.channel_axis == 1 else (-1,)  # of a convolution, of a linear layer
    return lower.view(shape), upper.view(shape), step.view(shape)


def _values(quantizer: nn.Module) -> nn.Module:
    return GridValues(quantizer) if isinstance(quantizer, Quantizer) else nn.Identity()


Containers = Callable[[float, float, int], ActivationContainer | None]


def _offset_codes(lower: float, upper: float, bits: int) -> ActivationContainer:
    """Return the grid of the quantizer itself, moved so that code 0 stands for zero: without padding, nothing else does."""
    return ActivationContainer((upper - lower) / (2**bits - 1), 0, -lower)


def _product(
    act_quantizer: nn.Module,
    weight_quantizer: nn.Module,
    weight: Tensor,
    bias: Tensor | None,
    container_for: Containers | None,
) -> Product:
    """Return the product of a layer in integers, or in floating point.

    Args:
        act_quantizer: of the input; no quantizer where it stays in full precision.
        weight_quantizer: of the weight, likewise.
        weight: rows first.
        bias: (rows,) or None.
        container_for: gives the grid for an input; floating point where it is None or gives None.
    """
    if container_for and isinstance(act_quantizer, Quantizer) and isinstance(weight_quantizer, Quantizer):
        lower, upper, _ = _grid(act_quantizer)
        bits = act_quantizer.spec.bits
        container = None if isinstance(lower, Tensor) else container_for(lower, upper, bits)
        if container is not None:
            integers = weight_container(freeze_weight(weight_quantizer, weight), largest_codes(bits)[1])
            return Product(ContainedValues(act_quantizer, container), IntegerWeight(integers), bias, container.shift)
    values = weight_quantizer(weight) if isinstance(weight_quantizer, Quantizer) else weight
    return Product(_values(act_quantizer), FloatWeight(values.detach()), bias, 0.0)
