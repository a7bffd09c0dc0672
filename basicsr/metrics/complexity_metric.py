"""Size and cost of a network: parameters, bytes, multiply-accumulate operations (MAC) and bit operations."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from basicsr.metrics.layer_costs import FULL_PRECISION_BITS, LayerCost, count_layers
from basicsr.utils.logger import get_logger

_NAMED = 5  # modules in the warning


def measure_complexity(network: nn.Module, /, *, lr_size: tuple[int, int] = (128, 128)) -> dict[str, Any]:
    """Return what a network costs, for `metrics.json`.

    Args:
        network: with the attribute `size_multiple`; quantizers must be calibrated.
        lr_size: height and width of the LR image that MACs are counted for.

    Returns:
        `parameters` (without those of quantizers); `bytes` (weights at their bits, everything else, bounds
        and points included, at 32 bits); `macs` and `quantized_macs` (layers both of whose factors are quantized); `bit_operations` (MACs
        times the bits of both factors). `not_counted` lists modules with parameters whose work no rule knows, where there are any;
        the log warns of them.
    """
    costs, not_counted = count_layers(network, lr_size)
    if not_counted:
        get_logger().warning(
            "The operations of %d modules with parameters are not counted: %s%s. A module states its own with a method "
            "`own_macs(inputs, output)`, or `cost` if it is a quantized one.",
            len(not_counted), ", ".join(not_counted[:_NAMED]), " and others" if len(not_counted) > _NAMED else "",
        )  # fmt: skip
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
        **({"not_counted": not_counted} if not_counted else {}),
    }


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
