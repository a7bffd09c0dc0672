"""The parts of a layer's weight that are quantized apart, each with its bias and the quantizer of its input."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from basicsr.quant.modules.base import QModule
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.search.weight_fit import InputMoments

_WEIGHT, _ACTIVATION = "weight_quantizer", "act_quantizer"


@dataclass(frozen=True)
class WeightPart:
    """Rows of a layer's weight that have a quantizer of their own, and the quantizer of their input.

    Attributes:
        path: name of the quantizer of the weight inside the layer.
        weight: the rows, which share memory with the layer.
        bias: their biases, likewise; None where the layer has none.
        quantizer: that of the weight.
        of_input: that of the input; an `nn.Identity` where it stays in full precision.
    """

    path: str
    weight: Tensor
    bias: Tensor | None
    quantizer: Quantizer
    of_input: nn.Module

    def replace(self, groups: Sequence[Tensor], bias_changes: Sequence[Tensor]) -> None:
        """Give the layer other rows, (rows, k) of each group, and add to their biases, if there are any, in place; without gradients."""
        if self.bias is not None:
            self.bias.add_(torch.cat(list(bias_changes)).to(self.bias))
        self.weight.copy_(torch.cat(list(groups)).to(self.weight).view_as(self.weight))


def weight_parts(layer: QModule) -> list[WeightPart]:
    """Return the parts of a layer whose weight is quantized; none of a layer without such."""
    weights = layer.weights()
    bias = layer._parameters.get("bias")
    biases = [None] * len(weights) if bias is None else bias.detach().chunk(len(weights))
    parts = []
    for (path, weight), of_part in zip(weights.items(), biases, strict=True):
        quantizer = layer.get_submodule(path)
        if isinstance(quantizer, Quantizer) and path.endswith(_WEIGHT):
            of_input = layer.get_submodule(path.removesuffix(_WEIGHT) + _ACTIVATION)
            parts.append(WeightPart(path, weight.detach(), of_part, quantizer, of_input))
    return parts


def updated_moments(moments: list[InputMoments], x: Tensor, z: Tensor) -> list[InputMoments]:
    """Return the moments of each group of inputs, begun where there are none, with further patches x and z, (positions, groups, k)."""
    moments = moments or [InputMoments(x.shape[2]) for _ in range(x.shape[1])]
    for one, of_x, of_z in zip(moments, x.unbind(1), z.unbind(1), strict=True):
        one.update(of_x, of_z)
    return moments
