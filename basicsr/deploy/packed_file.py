"""A quantized network in one file: everything that rebuilds it, weights as packed codes, nothing of its training.

The format of the file is in `packed_format.py`.
"""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from basicsr.archs import build_network
from basicsr.archs.base import scale_of
from basicsr.deploy.bit_packing import pack_codes, packed_size, unpack_codes
from basicsr.deploy.freeze import freeze_weights, frozen_map, put_frozen_weights
from basicsr.deploy.packed_format import Description, DtypeName, parse_description, read_packed, write_packed
from basicsr.quant.insertion.insert import apply_quantization_map, named_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.integers.frozen import FrozenWeight
from basicsr.quant.modules.base import QModule
from basicsr.utils.errors import CheckpointError
from basicsr.utils.network_size import SMALL, Bound, within

_CODES_IN_A_BYTE = 4  # at most, of two bits
_IMPLIED = ("bits", "calibrated")  # state of a quantizer that follows from the quantization map


def save_packed(
    network: nn.Module,
    network_options: Mapping[str, Any],
    quantization_map: QuantizationMap,
    path: str | Path,
    *,
    scale: int | None = None,
    method: str = "",
    half: bool = False,
) -> int:
    """Write a calibrated quantized network as a packed file.

    Args:
        network: a quantized network; its weights are frozen as its quantizers quantize them now.
        network_options: type and options that built the full-precision network; a type with a dot in it stands for a class that is
            no registered architecture, and a network of it has to be given when the file is loaded.
        quantization_map: what was inserted into it.
        path: file to write, `.safetensors`.
        scale: its scale factor; by default the network's attribute.
        method: label for reports.
        half: store what is not quantized (biases, norms, other layers) as float16. Outputs then differ a little.

    Returns:
        The size of the file in bytes.

    Raises:
        QuantizationError: a weight quantizer has no uniform grid, or is not calibrated.
        CheckpointError: the file cannot be written, or half precision cannot hold a value.
    """
    frozen = freeze_weights(network)
    state = _plain_state(network, frozen, half) | _quantizer_state(network, frozen)
    description = Description(
        network=json.loads(json.dumps(dict(network_options))),
        scale=scale_of(network) if scale is None else scale,
        quantization_map=frozen_map(quantization_map).as_dict(),
        codes=[(name, list(weight.codes.shape)) for name, weight in frozen.items()],
        state=[
            (name, cast(DtypeName, str(tensor.dtype).removeprefix("torch.")), list(tensor.shape))
            for name, tensor in state.items()
        ],
        method=method,
    )
    tensors = {"codes": torch.cat([pack_codes(weight.codes, weight.spec.bits) for weight in frozen.values()])}
    for dtype in {entry[1] for entry in description.state}:
        tensors[dtype] = torch.cat([t.flatten() for t in state.values() if t.dtype == getattr(torch, dtype)])
    return write_packed(path, description, tensors)


def load_packed(path: str | Path, network: nn.Module | None = None) -> tuple[nn.Module, Description]:
    """Rebuild the network of a packed file, in evaluation mode on the CPU.

    Its quantized weights are those that the trained network's quantizers put out; to the last bit where these are affine.

    Args:
        path: the packed file.
        network: a full-precision network of the class that was packed, which is copied; by default one is built by name and options.

    Returns:
        The quantized network, and the description of the file.

    Raises:
        CheckpointError: the file does not exist, is cut off or edited, is no packed network, or is of a newer format.
    """
    tensors = read_packed(path)
    try:
        description = parse_description(tensors["description"])
        if network is None:
            _require_architecture(path, str(description.network.get("type")))
        with within(_bound(tensors, description)):
            network = build_network(description.network) if network is None else copy.deepcopy(network).cpu()
            apply_quantization_map(network, description.map())
        _fill(network, tensors, description)
    except _UnknownClassError:
        raise
    except Exception as error:  # a description that lies, with its checksum right, is met with errors of any kind
        raise CheckpointError(
            f"The packed network '{path}' cannot be rebuilt: {str(error).partition(chr(10))[0]} It was written by another version of this program, or belongs to "
            "another network than the one given; pack the network again."
        ) from error
    return network.eval().requires_grad_(False), description


def _bound(tensors: Mapping[str, Tensor], description: Description) -> Bound:
    """Return how large the network of a file can be that has these tensors to fill it with."""
    stored = sum(tensor.numel() * (_CODES_IN_A_BYTE if name == "codes" else 1) for name, tensor in tensors.items())
    pieces = min(len(description.codes) + len(description.state), stored)  # more of them are empty
    return SMALL.around(stored, pieces)


class _UnknownClassError(CheckpointError):
    """A packed file does not say how its network is built."""


def _require_architecture(path: str | Path, name: str) -> None:
    if "." in name:
        raise _UnknownClassError(
            f"The packed network '{path}' is of the class {name}, which is no registered architecture, so that the file alone does not "
            "rebuild it. Load it with basicsr.load(file, network=...), given a network of that class, or use its ONNX graph."
        )


def _plain_state(network: nn.Module, frozen: Mapping[str, FrozenWeight], half: bool) -> dict[str, Tensor]:
    """Return the state that belongs to no quantizer and is not stored as codes."""
    left_out = {f"{name}.weight" for name in _modules_with_codes(network, frozen)}
    prefixes = tuple(f"{name}." for name, _ in named_quantizers(network))
    plain = {k: v for k, v in network.state_dict().items() if k not in left_out and not k.startswith(prefixes)}
    if not half:
        return plain
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
    for name, tensor in halved.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"The tensor '{name}' holds values beyond half precision; pack it in full precision.")
    return halved


def _modules_with_codes(network: nn.Module, frozen: Mapping[str, FrozenWeight]) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, QModule) and any(f"{name}.{slot}" in frozen for slot in module.weights())
    ]


def _quantizer_state(network: nn.Module, frozen: Mapping[str, FrozenWeight]) -> dict[str, Tensor]:
    """Return what the quantization map does not say of the quantizers; of those of weights, the bounds."""
    state = {}
    for name, quantizer in named_quantizers(network):
        if name in frozen:
            state[f"{name}.lower_bound"], state[f"{name}.upper_bound"] = (
                frozen[name].lower_bound,
                frozen[name].upper_bound,
            )
        else:
            own = quantizer.state_dict()
            state |= {f"{name}.{key}": value for key, value in own.items() if key not in _IMPLIED}
    return state


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Give a network with empty quantizers the state of the file."""
    state = _pieces(tensors, description)
    quantizers = dict(named_quantizers(network))
    frozen, offset = {}, 0
    for name, shape in description.codes:
        spec = quantizers[name].spec
        end = offset + packed_size(math.prod(shape), spec.bits)
        codes = unpack_codes(_part(tensors["codes"], offset, end), spec.bits, shape)
        lower, upper = (state.pop(f"{name}.{bound}") for bound in ("lower_bound", "upper_bound"))
        frozen[name], offset = FrozenWeight(codes, lower, upper, spec), end
    put_frozen_weights(network, frozen)
    for name, quantizer in quantizers.items():
        if name not in frozen:
            own = {key: state.pop(f"{name}.{key}") for key in quantizer.state_dict() if key not in _IMPLIED}
            quantizer.load_state_dict({**own, "bits": quantizer.bits, "calibrated": torch.tensor(True)})
    missing, unexpected = network.load_state_dict(state, strict=False)
    filled = {f"{name}.weight" for name in _modules_with_codes(network, frozen)}
    missing = [key for key in missing if key not in filled and not key.startswith(tuple(f"{n}." for n in quantizers))]
    if missing or unexpected:
        raise ValueError(
            f"its tensors are not those of the network; '{[*missing, *unexpected][0]}' is on one side only."
        )


def _pieces(tensors: Mapping[str, Tensor], description: Description) -> dict[str, Tensor]:
    """Return the state other than codes by name; half precision becomes float32."""
    offsets: dict[str, int] = {}
    pieces = {}
    for name, dtype, shape in description.state:
        start = offsets.get(dtype, 0)
        offsets[dtype] = start + math.prod(shape)
        piece = _part(tensors[dtype], start, offsets[dtype]).reshape(tuple(shape))
        pieces[name] = piece.float() if dtype == "float16" else piece
    return pieces


def _part(tensor: Tensor, start: int, end: int) -> Tensor:
    if not start <= end <= len(tensor):
        raise ValueError(f"it describes {end} numbers where it holds {len(tensor)}.")
    return tensor[start:end]
