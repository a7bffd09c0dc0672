"""Files of a quantized network: packed, and as graphs for runtimes; and back from the packed file."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.base import detect_options, size_multiple_of
from basicsr.deploy.onnx_export import check_onnx, save_onnx
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.interface.networks import EnlargingNetwork, layers_left_out, plain_copy
from basicsr.interface.quantized_network import QuantizedNetwork, require_quantized
from basicsr.utils.errors import OptionsError, UserError
from basicsr.utils.registry import ARCH_REGISTRY

PACKED, GRAPH = ".safetensors", ".onnx"


def export(
    quantized: QuantizedNetwork,
    path: str | Path,
    *,
    onnx: bool = False,
    half: bool = False,
    network_options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a quantized network as files for use.

    The packed file (`.safetensors`) holds weights as codes of their bits. It rebuilds networks of registered architectures by itself
    (`basicsr.load(file)`, `python basicsr/upscale.py`); of any other network it holds all but the code, so that loading needs such a
    network (`basicsr.load(file, network=...)`). An ONNX graph needs neither.

    Args:
        quantized: what `quantize` or `distill` returned.
        path: a file `.safetensors`, a file `.onnx`, or a folder, whose files are named after network, method and bits.
        onnx: write an ONNX graph beside the packed file.
        half: store what is not quantized in half precision.
        network_options: `{"type": name, ...}` with which the network was built, for a registered architecture; found out where the
            weights tell.

    Returns:
        The files that were written.

    Raises:
        OptionsError: the path has another ending, or a package for ONNX is not installed.
        CheckpointError: a file cannot be written.
        QuantizationError: the network has no such form.
    """
    require_quantized(quantized)
    path = Path(path)
    if path.suffix.lower() not in (PACKED, GRAPH, ""):
        raise OptionsError(
            f"The path '{path}' ends in '{path.suffix}', but must be a file {PACKED} or {GRAPH}, or a folder."
        )
    if not path.suffix:
        bits = "_".join(
            f"{role[0]}{max(quantized.bits(role), key=quantized.bits(role).__getitem__, default=32)}"
            for role in ("weight", "activation")
        )
        first = quantized.methods[0].split(",")[0].replace(" ", "_")
        path = path / f"{type(quantized.network).__name__}_{first}_{bits}{PACKED}"
    if onnx or path.suffix.lower() == GRAPH:
        check_onnx()
    files = []
    on_cpu = copy.deepcopy(quantized.network).cpu().eval()
    if path.suffix.lower() == PACKED:
        chosen = dict(network_options or _known_options(quantized) or _described(quantized))
        save_packed(
            on_cpu, chosen, quantized.quantization_map, path, scale=quantized.scale, method=quantized.method, half=half
        )
        files.append(path)
    if onnx or path.suffix.lower() == GRAPH:
        graph = path.with_suffix(GRAPH)
        graph.parent.mkdir(parents=True, exist_ok=True)
        save_onnx(
            EnlargingNetwork(on_cpu, quantized.scale, quantized.size_multiple),
            graph,
            smallest_side=quantized.smallest_side,
        )
        files.append(graph)
    return files


def load(path: str | Path, network: nn.Module | None = None) -> QuantizedNetwork:
    """Load a packed network, in evaluation mode on the CPU.

    Args:
        path: the packed file.
        network: the full-precision network that was quantized, or one of its class. It is required where the file does not name a
            registered architecture, gives the place of the weights, and is what `fidelity` compares with; it is not changed.

    Raises:
        CheckpointError: the file cannot be read, or does not belong to the network.
        OptionsError: the network cannot be copied.
    """
    full_precision = None if network is None else plain_copy(network).cpu()
    quantized, description = load_packed(path, full_precision)
    return QuantizedNetwork(
        quantized,
        description.scale,
        int(description.network.get("size_multiple", size_multiple_of(quantized))),
        full_precision=full_precision,
        quantization_map=description.map(),
        calibration=(),
        sections={},
        methods=(description.method,),
        left_out={}
        if full_precision is None
        else layers_left_out(full_precision, dict(full_precision.named_modules())),
        smallest_side=int(description.network.get("smallest_side", 1)),
    )


def _described(quantized: QuantizedNetwork) -> dict[str, Any]:
    """Return what a packed file says of a network that no registered name rebuilds; the name has a dot, which those have not."""
    kind = type(quantized.network)
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "size_multiple": quantized.size_multiple,
        "smallest_side": quantized.smallest_side,
    }


@torch.no_grad()
def _known_options(quantized: QuantizedNetwork) -> dict[str, Any] | None:
    """Return the options that rebuild the full-precision network, if its architecture is registered and the outputs are the same."""
    network = quantized.full_precision
    name = type(network).__name__
    if network is None or name not in ARCH_REGISTRY.names() or ARCH_REGISTRY.get(name) is not type(network):
        return None
    detected = detect_options(type(network), network.state_dict())
    if detected is None:
        return None
    options = {"type": name, **detected}
    try:
        rebuilt = build_network(options)
        rebuilt.load_state_dict(network.state_dict())
    except (UserError, RuntimeError):
        return None
    device = next(network.parameters()).device
    side = quantized.size_multiple * max(1, -(-quantized.smallest_side // quantized.size_multiple))
    lr = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    return options if torch.equal(rebuilt.to(device).eval()(lr), network(lr)) else None
