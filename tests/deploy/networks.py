"""Calibrated tiny networks to pack and to compute in integers."""

from typing import Any

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from tests import tiny
from tests.quant.helpers import set_min_max_bounds

SWINIR = {"type": "SwinIR", "upscale": 2, **tiny.NETWORK}
EDSR = {"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"], "res_scale": 0.1}
IMAGE = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(2))


def calibrated(
    coverage: str = "2dquant", bits: int = 4, options: dict[str, Any] = SWINIR, **insertion: Any
) -> tuple[nn.Module, QuantizationMap]:
    """Return a quantized network with seeded random weights and bounds from one picture, and its map."""
    torch.manual_seed(11)
    network = build_network(options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    quantization_map = insert_quantizers(network, coverage, bits, bits, **insertion)
    set_min_max_bounds(network, IMAGE)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("upper_bound"):
                parameter.mul_(0.8)  # bounds that clip
    return network.eval(), quantization_map


def as_it_is(graph: Any, image: torch.Tensor) -> torch.Tensor:
    """Return what ONNX Runtime makes of a graph that it gets as it was made, not in the form of its own."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"lr": image.numpy()})[0])
