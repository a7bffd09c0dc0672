"""A quantized Swin layer as the numbers that `native/swin_layer.cpp` reads, in its order.

With activations c_x s_x + l_x and weights c_w s_w + l_w (codes c, steps s, lower bounds l) the output of a linear layer is

    s_x s_w sum c_x c_w + s_x l_w sum c_x + (l_x s_w sum c_w + K l_x l_w + bias),

as in `quant.integers.sums`: three numbers for each output, and exact sums of integers. Weight codes are moved so that they lie around
zero, which moves l_w. What comes after the layer, a scale or the way onto the grid of the next quantizer, is in the same three numbers.
Terms that are the same for all of a row of logits are left out, since a softmax does not see them.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.swin_layers import SwinLayer
from basicsr.quant.integers.sums import Grid
from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.linear_qmodule import Projection, QLinear, QSplitLinear
from basicsr.quant.modules.matmul_qmodule import QMatMul
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError

BLOCK = 64  # columns of a product in the kernel, and tokens of a window
_LARGEST_HEAD = 31
_LOG2_E = math.log2(math.e)
_MASKED = -100.0  # of `window_attention`
_QUANTIZERS = 16  # of the inputs and weights of q, k, v, proj, fc1 and fc2, and of both factors of two products


@dataclass(frozen=True)
class SwinParameters:
    """What the kernel takes besides the map.

    Attributes:
        sizes: channels, hidden channels, heads, and whether the windows are shifted.
        numbers: float32, (n,).
        codes: int8, (m,): the weights.
    """

    sizes: tuple[int, int, int, int]
    numbers: Tensor
    codes: Tensor


def swin_parameters(block: SwinLayer) -> SwinParameters | None:
    """Return the parameters of a calibrated quantized layer; None where the kernel has no form for it.

    The kernel takes windows of 8 x 8 tokens, heads of at most 31 channels, and static uniform quantizers in all places of the
    coverage `2dquant`, with one grid for each tensor of activations and for each tensor or row of weights.
    """
    if not _has_form(block):
        return None
    try:
        return _Packer(block).packed()
    except QuantizationError:  # a quantizer has no such grid
        return None


def _has_form(block: SwinLayer) -> bool:
    """Return whether the modules of a layer are those that the kernel computes."""
    attention, mlp = block.attn, block.mlp
    quantized = (attention.qkv, attention.proj, mlp.fc1, mlp.fc2, attention.qk, attention.av)
    types = (QSplitLinear, QLinear, QLinear, QLinear, QMatMul, QMatMul)
    if not all(type(module) is expected for module, expected in zip(quantized, types, strict=True)):
        return False
    exact_gelu = type(mlp.act) is nn.GELU and mlp.act.approximate == "none"
    return (
        exact_gelu
        and cast(QSplitLinear, attention.qkv).split == ("q", "k", "v")
        and all(cast(QModule, module).input_rotation is None for module in quantized)
        and not cast(QMatMul, attention.qk).late_division
        and sum(isinstance(module, Quantizer) for module in block.modules()) == _QUANTIZERS
        and attention.window_tokens == BLOCK
        and block.norm1.normalized_shape[0] // attention.num_heads <= _LARGEST_HEAD
    )


def _grid(quantizer: Quantizer) -> Grid:
    """Return the grid of a tensor of activations."""
    grid = Grid(quantizer)
    if grid.step.dim():
        raise QuantizationError(f"The quantizer '{quantizer.name}' has a grid for each channel.")
    return grid


class _Packer:
    """Writes down the numbers of one layer, in the order in which the kernel reads them."""

    def __init__(self, block: SwinLayer) -> None:
        self._block = block
        self._numbers: list[Tensor] = []
        self._codes: list[Tensor] = []

    @torch.no_grad()
    def packed(self) -> SwinParameters:
        block, attention = self._block, self._block.attn
        self._attention_inputs()
        self._attention_scales()
        self._number(attention.position_bias().double().flatten() * _LOG2_E)
        proj, fc1, fc2 = (cast(QLinear, layer) for layer in (attention.proj, block.mlp.fc1, block.mlp.fc2))
        dim, hidden = fc1.weight.shape[1], fc1.weight.shape[0]
        self._codes_of(proj.act_quantizer, proj)
        self._linear(proj, proj.weight, proj.bias)
        self._number(block.norm2.eps)
        self._codes_of(fc1.act_quantizer, fc1, block.norm2)
        self._linear(fc1, fc1.weight, fc1.bias)
        self._codes_of(fc2.act_quantizer, fc2)
        self._linear(fc2, fc2.weight, fc2.bias)
        sizes = (dim, hidden, attention.num_heads, int(block.order == "shifted"))
        return SwinParameters(sizes, torch.cat(self._numbers), torch.cat(self._codes))

    def _attention_inputs(self) -> None:
        block, attention = self._block, self._block.attn
        qkv, qk, av = cast(QSplitLinear, attention.qkv), cast(QMatMul, attention.qk), cast(QMatMul, attention.av)
        self._number(block.norm1.eps)
        for part in qkv.parts:
            self._codes_of(part.act_quantizer, qkv, block.norm1)
        biases = [None] * 3 if qkv.bias is None else qkv.bias.chunk(3)
        after = ((qk.a_quantizer, attention.scale), (qk.b_quantizer, 1.0), (av.b_quantizer, 1.0))
        weights = qkv.weight.chunk(3)
        for part, weight, bias, (quantizer, scale) in zip(qkv.parts, weights, biases, after, strict=True):
            grid = _grid(quantizer)
            self._linear(part, weight, bias, scale / grid.step, -grid.lower / grid.step)
            self._number(quantizer.spec.max_code)

    def _attention_scales(self) -> None:
        attention = self._block.attn
        qk, av = cast(QMatMul, attention.qk), cast(QMatMul, attention.av)
        q, k, p, v = (_grid(x) for x in (qk.a_quantizer, qk.b_quantizer, av.a_quantizer, av.b_quantizer))
        top = av.a_quantizer.spec.max_code
        flipped = [x.spec.bits == 8 for x in (qk.b_quantizer, av.b_quantizer)]
        lowest = v.lower + 128 * v.step * flipped[1]  # what a code of v that is multiplied as 0 stands for
        # of the sum of a row of codes, and what is added
        divisor = (p.step, BLOCK * p.lower) if av.late_division else (0.0, 1.0)
        for number in (
            _LOG2_E * q.step * k.step, _LOG2_E * q.lower * k.step,
            1 / p.step, -p.lower / p.step, top,
            p.step * v.step, p.step * lowest, p.lower * v.step, BLOCK * p.lower * lowest,
            _LOG2_E * _MASKED, av.late_division, *divisor, *flipped,
        ):  # fmt: skip
            self._number(cast(float, number))

    def _codes_of(self, quantizer: Quantizer, layer: QLinear | QSplitLinear, norm: nn.LayerNorm | None = None) -> None:
        """Write what turns inputs of a layer, or what a norm makes of them, into codes."""
        grid, channels = _grid(quantizer), layer.weight.shape[1]
        gain, offset = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
        if norm is not None:
            gain, offset = norm.weight.double(), norm.bias.double()
        if layer.input_scale is not None:
            gain, offset = gain / layer.input_scale.factors.double(), offset / layer.input_scale.factors.double()
        self._channels(gain / grid.step)
        self._channels((offset - grid.lower) / grid.step)
        self._number(quantizer.spec.max_code)

    def _linear(
        self,
        layer: QLinear | Projection,
        weight: Tensor,
        bias: Tensor | None,
        gain: Tensor | float = 1.0,
        offset: Tensor | float = 0.0,
    ) -> None:
        """Write a linear layer whose output is multiplied by `gain`, and gets `offset` added."""
        x, w = _grid(layer.act_quantizer), Grid(layer.weight_quantizer, weight)
        middle = 2 ** (layer.weight_quantizer.spec.bits - 1)
        codes = layer.weight_quantizer.codes(weight).double() - middle  # rows, inputs
        step, lower = w.step.expand(len(codes)), (w.lower + middle * w.step).expand(len(codes))
        constant = x.lower * (step * codes.sum(1) + codes.shape[1] * lower)
        if bias is not None:
            constant = constant + bias.double()
        for number in (gain * x.step * step, gain * x.step * lower, gain * constant + offset):
            self._channels(number)
        self._weight(codes.to(torch.int8))

    def _weight(self, codes: Tensor) -> None:
        """Write a weight (rows, inputs) as blocks of rows, groups of 4 inputs, rows, inputs of the group."""
        rows, inputs = codes.shape
        codes = F.pad(codes, (0, -inputs % 4, 0, -rows % BLOCK))
        blocks = codes.view(-1, BLOCK, codes.shape[1] // 4, 4).transpose(1, 2)
        self._codes.append(blocks.flatten())

    def _channels(self, numbers: Tensor) -> None:
        self._numbers.append(F.pad(numbers, (0, -len(numbers) % BLOCK)).float())

    def _number(self, number: Tensor | float) -> None:
        self._numbers.append(torch.as_tensor(number, dtype=torch.float32).flatten())
