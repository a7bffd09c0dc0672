"""Quantized linear layers."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.quant.integers.products import Product, offset_codes, product_of
from basicsr.quant.integers.sums import ActivationCodes, WeightCodes, affine_sum
from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split, weight_slot
from basicsr.quant.modules.cost import Cost, bits_of, weighted_cost
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.registry import QMODULE_REGISTRY


@QMODULE_REGISTRY.register("QLinear")
class QLinear(QModule[nn.Linear]):
    """A linear layer with quantized input and weight; the bias stays in full precision."""

    source_type = "Linear"
    scales_its_input = True
    rotates_its_input = True
    weight: Tensor
    bias: Tensor | None
    weight_quantizer: Quantizer
    act_quantizer: Quantizer

    @classmethod
    def slots(cls, source: nn.Linear, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return a slot for the weight and one for the input."""
        refuse_split("QLinear", split)
        return [
            weight_slot("weight_quantizer", source.out_features),
            QuantizerSlot("act_quantizer", "activation", source.in_features, -1),
        ]

    def cost(self, _inputs: tuple[Tensor, ...], output: Tensor, /) -> Cost:
        """Return one MAC for each output value and input feature."""
        return weighted_cost(
            "linear", self.weight, output, [(bits_of(self.weight_quantizer), bits_of(self.act_quantizer))]
        )

    def integer_twin(self) -> nn.Module:
        """Return the layer in integers."""
        return IntegerLinear(self)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:
        """Return the layer in 8-bit codes, or in floating point."""
        return RuntimeLinear(self, integer_linear)

    def patches(self, x: Tensor, /) -> Tensor:
        """Return (..., in_features) as (positions, 1, in_features)."""
        return x.reshape(-1, 1, x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(self.act_quantizer(self.scaled(x)), self.weight_quantizer(self.weight), self.bias)


class Projection(nn.Module):
    """The quantizers of one part of a split linear layer."""

    weight_quantizer: Quantizer
    act_quantizer: Quantizer


@QMODULE_REGISTRY.register("QSplitLinear")
class QSplitLinear(QModule[nn.Linear]):
    """A linear layer whose rows are several projections of the same size, each with its own two quantizers.

    The `attn.qkv` layer of a Swin transformer is one: split into q, k and v it has the children `q`, `k` and `v`, which
    hold the quantizers, while weight and bias stay whole under their official keys. The output has the layout of the
    linear layer: the projections one after the other along the last axis.
    """

    source_type = "Linear"
    scales_its_input = True
    rotates_its_input = True
    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__(source, {})
        self.split = tuple(dict.fromkeys(slot.partition(".")[0] for slot in quantizers))
        for part in self.split:
            self.add_module(part, Projection())
        for slot, quantizer in quantizers.items():
            part, _, name = slot.partition(".")
            getattr(self, part).add_module(name, quantizer)

    @classmethod
    def slots(cls, source: nn.Linear, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return a slot for the weight and one for the input of each part."""
        rows = source.weight.shape[0]
        if len(split) < 2 or len(set(split)) < len(split) or rows % len(split):
            raise QuantizationError(
                f"A linear layer with {rows} rows cannot be split into ({', '.join(split)}): it needs two or more different "
                "names, and a number of rows that they share equally."
            )
        return [
            slot
            for part in split
            for slot in (
                weight_slot(f"{part}.weight_quantizer", rows // len(split)),
                QuantizerSlot(f"{part}.act_quantizer", "activation", source.in_features, -1),
            )
        ]

    @property
    def parts(self) -> list[Projection]:
        """The quantizers of each part, in the order of `split`."""
        return [getattr(self, part) for part in self.split]

    def patches(self, x: Tensor, /) -> Tensor:
        """Return (..., in_features) as (positions, 1, in_features), for each part."""
        return x.reshape(-1, 1, x.shape[-1])

    def slots_with_same_input(self) -> tuple[str, ...]:
        """Return the slots of the input of each part: it is the input of the layer for all of them."""
        return tuple(f"{part}.act_quantizer" for part in self.split)

    def weights(self) -> dict[str, Tensor]:
        """Return the rows of the weight that belong to each part, by the name of the slot of their quantizer."""
        rows = self.weight.chunk(len(self.split))
        return {f"{part}.weight_quantizer": weight for part, weight in zip(self.split, rows, strict=True)}

    def cost(self, _inputs: tuple[Tensor, ...], output: Tensor, /) -> Cost:
        """Return one MAC for each output value and input feature; each part has its own bits."""
        pairs = [(bits_of(part.weight_quantizer), bits_of(part.act_quantizer)) for part in self.parts]
        return weighted_cost("linear", self.weight, output, pairs)

    def integer_twin(self) -> nn.Module:
        """Return the layer in integers."""
        return IntegerSplitLinear(self)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:
        """Return the layer in 8-bit codes, or in floating point."""
        return RuntimeLinear(self, integer_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        x = self.scaled(x)
        biases = [None] * len(self.split) if self.bias is None else self.bias.chunk(len(self.split))
        outputs = []
        for part, weight, bias in zip(self.split, self.weights().values(), biases, strict=True):
            projection = getattr(self, part)
            outputs.append(F.linear(projection.act_quantizer(x), projection.weight_quantizer(weight), bias))
        return torch.cat(outputs, dim=-1)  # ..., out_features


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
        parts = source.parts
        self.activations = [ActivationCodes(part.act_quantizer) for part in parts]
        weights = source.weights().values()
        self.weights = [WeightCodes(part.weight_quantizer, w) for part, w in zip(parts, weights, strict=True)]
        self.biases: list[None] | list[Tensor] = (
            [None] * len(parts) if source.bias is None else list(source.bias.chunk(len(parts)))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        parts = zip(self.activations, self.weights, self.biases, strict=True)
        return torch.cat([_integer_linear(activation, weight, bias, x) for activation, weight, bias in parts], dim=-1)


def _integer_linear(activation: ActivationCodes, weight: WeightCodes, bias: Tensor | None, x: Tensor) -> Tensor:
    codes = activation(x)
    products = codes @ weight.codes.T
    x_sums, w_sums = codes.sum(-1, keepdim=True), weight.codes.sum(1)  # ..., 1 and out_features
    y = affine_sum(activation.grid, weight.grid, products, x_sums, w_sums, x.shape[-1])
    return (y if bias is None else y + bias).to(x.dtype)


class RuntimeLinear(nn.Module):
    """Runtime twin of QLinear, and of QSplitLinear: one product, or one for each part that rounds its input differently."""

    products: Sequence[Product]  # an nn.ModuleList

    def __init__(self, source: QLinear | QSplitLinear, integers: bool) -> None:
        super().__init__()
        parts: Sequence[QLinear | Projection] = [source] if isinstance(source, QLinear) else source.parts
        biases = [None] * len(parts) if source.bias is None else source.bias.chunk(len(parts))
        products = [
            product_of(part.act_quantizer, part.weight_quantizer, weight, bias, offset_codes if integers else None)
            for part, weight, bias in zip(parts, source.weight.chunk(len(parts)), biases, strict=True)
        ]
        self.products = cast("Sequence[Product]", nn.ModuleList(products))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        projections = self.projections(x)
        return projections[0] if len(projections) == 1 else torch.cat(projections, dim=-1)

    def projections(self, x: Tensor) -> list[Tensor]:
        """Return the output of each part, (..., out_features / parts)."""
        return [F.linear(product.inputs(x), product.weight(), product.bias) for product in self.products]
