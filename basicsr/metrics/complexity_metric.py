"""Size and cost of a network: parameters, bytes, multiply-accumulate operations (MAC) and bit operations.

Networks are observed from outside: layers are known by the names of their classes, quantizers as children called
`..._quantizer` with an attribute `bits`, and points that are not learned as their buffer `points`.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["linear", "matmul", "conv", "norm"]

FULL_PRECISION_BITS = 32

_KINDS: dict[str, Kind] = {
    "Linear": "linear",
    "QLinear": "linear",
    "QSplitLinear": "linear",
    "MatMul": "matmul",
    "QMatMul": "matmul",
    "Conv2d": "conv",
    "QConv2d": "conv",
    "LayerNorm": "norm",
}
_PROBE_SIDE = 16


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one LR image.

    Attributes:
        name: path of the module.
        kind: what it computes; a `norm` counts one MAC for each value.
        macs: multiply-accumulate operations.
        weights: number of elements of the weight, without the bias.
        weight_bits: bits of the weight (mean over the parts of a split layer); 32 if it is not quantized.
        bit_product: bits of one factor times bits of the other (mean over parts); 1024 in full precision.
        quantized: both factors are.
    """

    name: str
    kind: Kind
    macs: int
    weights: int
    weight_bits: float
    bit_product: float
    quantized: bool


def measure_complexity(network: nn.Module, /, *, lr_size: tuple[int, int] = (128, 128)) -> dict[str, float]:
    """Return what a network costs, for `metrics.json`.

    Args:
        network: with the attribute `size_multiple`; quantizers must be calibrated.
        lr_size: height and width of the LR image that MACs are counted for.

    Returns:
        `parameters` (without those of quantizers); `bytes` (weights at their bits, everything else, bounds
        and points included, at 32 bits); `macs` and `quantized_macs` (layers both of whose factors are quantized); `bit_operations` (MACs
        times the bits of both factors).
    """
    costs = count_layers(network, lr_size)
    bounds = sum(p.numel() for name, p in network.named_parameters() if "_quantizer." in name)
    parameters = sum(p.numel() for p in network.parameters()) - bounds
    bounds += sum(b.numel() for name, b in network.named_buffers() if name.endswith("_quantizer.points"))
    saved_bits = sum(cost.weights * (FULL_PRECISION_BITS - cost.weight_bits) for cost in costs)
    return {
        "lr_height": lr_size[0],
        "lr_width": lr_size[1],
        "parameters": parameters,
        "bytes": ((parameters + bounds) * FULL_PRECISION_BITS - saved_bits) / 8,
        "macs": sum(cost.macs for cost in costs),
        "quantized_macs": sum(cost.macs for cost in costs if cost.quantized),
        "bit_operations": sum(cost.macs * cost.bit_product for cost in costs),
    }


def count_layers(network: nn.Module, lr_size: tuple[int, int]) -> list[LayerCost]:
    """Return the cost of every linear layer, activation product, convolution and layer normalisation.

    The layers are counted in one pass over a small image, and scaled: all of them cost the same for each pixel. Sides
    that are no multiples of the network's `size_multiple` count as the next multiple.

    Args:
        network: a network for RGB images, in any mode.
        lr_size: height and width of the LR image.
    """
    multiple = network.size_multiple
    side = -(-_PROBE_SIDE // multiple) * multiple
    height, width = (-(-length // multiple) * multiple for length in lr_size)
    costs: dict[str, LayerCost] = {}
    hooks = []
    for name, module in _outermost_layers(network):

        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            cost = _cost(name, module, inputs, output)
            earlier = costs[name].macs if name in costs else 0
            costs[name] = replace(cost, macs=cost.macs + earlier)

        hooks.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            network(next(network.parameters()).new_full((1, 3, side, side), 0.5))
    finally:
        for hook in hooks:
            hook.remove()
    return [replace(cost, macs=cost.macs * height * width // side**2) for cost in costs.values()]


def reduction(quantized: float, other: float, bits: float) -> float:
    """Return how many times less something becomes if a part of it shrinks from 32 to `bits` bits.

    With MACs this is the speed-up and with parameters the compression that 2DQuant states (arXiv 2406.06649, table
    1). No hardware is that fast: the cost of a quantized product is taken as proportional to its bits.
    """
    return (quantized + other) / (quantized * bits / FULL_PRECISION_BITS + other)


def published_swinir_macs(costs: Sequence[LayerCost], scale: int) -> tuple[int, int]:
    """Return the MACs of linear layers with products, and of all the rest, as papers on SwinIR-light give them.

    They use the function `flops` of the official code, which counts three of the nine taps of the convolution after the
    body, and the last convolution as if it had three output channels. The true numbers are those of `count_layers`.

    Args:
        costs: layers of a SwinIR with the upsampler `pixelshuffledirect`.
        scale: its scale factor.
    """
    quantized = sum(cost.macs for cost in costs if cost.kind in ("linear", "matmul"))
    too_large = {"conv_after_body": 3, "upsample.0": scale**2}
    other = sum(cost.macs // too_large.get(cost.name, 1) for cost in costs if cost.kind in ("conv", "norm"))
    return quantized, other


def _outermost_layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a known kind that are not inside of another one."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child).__name__ in _KINDS:
            yield path, child
        else:
            yield from _outermost_layers(child, f"{path}.")


def _cost(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> LayerCost:
    kind = _KINDS[type(module).__name__]
    weights = 0
    if kind in ("linear", "conv"):
        weights = module.weight.numel()
        macs = output.numel() * module.weight[0].numel()
    else:
        macs = output.numel() * (inputs[0].shape[-1] if kind == "matmul" else 1)
    pairs = _bits_of_factors(module, ("a", "b") if kind == "matmul" else ("weight", "act"))
    return LayerCost(
        name=name,
        kind=kind,
        macs=macs,
        weights=weights,
        weight_bits=sum(first for first, _ in pairs) / len(pairs) if weights else FULL_PRECISION_BITS,
        bit_product=sum(first * second for first, second in pairs) / len(pairs),
        quantized=all(bits < FULL_PRECISION_BITS for pair in pairs for bits in pair),
    )


def _bits_of_factors(module: nn.Module, factors: tuple[str, str]) -> list[tuple[int, int]]:
    """Return the bits of both factors of a layer, or of each part of a split layer."""
    parts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for path, child in module.named_modules():
        part, _, name = path.rpartition(".")
        if name.endswith("_quantizer") and hasattr(child, "bits"):
            parts[part][name.removesuffix("_quantizer")] = int(child.bits)
    first, second = factors
    return [
        (bits.get(first, FULL_PRECISION_BITS), bits.get(second, FULL_PRECISION_BITS)) for bits in parts.values()
    ] or [(FULL_PRECISION_BITS, FULL_PRECISION_BITS)]
