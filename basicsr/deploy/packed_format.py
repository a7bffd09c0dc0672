"""The format of packed networks: one `.safetensors` file of a description, tensors and a checksum.

Tensors of the file, each with one axis:

- `codes` (uint8): the codes of all quantized weights, packed by `bit_packing`, one weight behind the other;
- `float32`, `float16`, `int64` ...: all other state of that type, such as biases and bounds, one piece behind the other;
- `description` (uint8): the compressed JSON text of `Description`, which says what lies where. (A tensor of its own for each of
  a few hundred small pieces would cost as much as a tenth of the codes.)

The metadata name the format, its version, the architecture, scale factor and bits for a reader's eye, and hold the checksum over
everything, so that a file that was cut off or edited is refused. No code of the file is ever run.
"""

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import atomic_path, why_no_file
from basicsr.utils.safetensors_bytes import to_safetensors

FORMAT = "basicsr-quantized"
FORMAT_VERSION = 1
_LARGEST_DESCRIPTION = 1 << 24  # bytes; protects against a few bytes that decompress without end
DtypeName = Literal["bool", "float16", "float32", "int32", "int64", "uint8"]


class Description(pydantic.BaseModel):
    """What a packed file holds."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    network: dict[str, Any]
    """Type and options of the architecture."""
    scale: int
    quantization_map: dict[str, Any]
    codes: list[tuple[str, list[int]]]
    """Name of the quantizer and shape of each quantized weight, in the order of `codes`."""
    state: list[tuple[str, DtypeName, list[int]]]
    """Name, type and shape of each other piece, in the order of the file."""
    method: str
    """Label of the method that found the quantizers, for reports."""

    def map(self) -> QuantizationMap:
        """Return the record of the quantizers."""
        return QuantizationMap.from_dict(self.quantization_map)


def write_packed(path: str | Path, description: Description, tensors: Mapping[str, Tensor]) -> int:
    """Write a packed file.

    Args:
        path: file to write, `.safetensors`.
        description: what the file holds.
        tensors: the tensors of the file except `description`, each with one axis.

    Returns:
        The size of the file in bytes.

    Raises:
        CheckpointError: the file cannot be written.
    """
    text = zlib.compress(description.model_dump_json().encode(), 9)
    everything = {**tensors, "description": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
    everything = {name: tensor.contiguous().cpu() for name, tensor in sorted(everything.items())}
    content = to_safetensors(everything, _metadata(description, everything))
    failure = f"The packed network '{path}' cannot be written"
    with explained(CheckpointError, failure), atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content)
    return len(content)


def read_packed(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a packed file, its description among them, after its checksum was compared.

    Raises:
        CheckpointError: the file does not exist, is cut off or edited, is no packed network, or is of a newer format.
    """
    tensors, metadata = _read(Path(path))
    _check_metadata(path, tensors, metadata)
    return tensors


def parse_description(packed: Tensor) -> Description:
    """Return the description of a packed file from its tensor `description`.

    Raises:
        ValueError: it is no description; `pydantic.ValidationError` is one such error.
        zlib.error: it is not compressed text.
    """
    reader = zlib.decompressobj()
    text = reader.decompress(packed.numpy().tobytes(), _LARGEST_DESCRIPTION)
    if reader.unconsumed_tail:
        raise ValueError(f"its description is longer than {_LARGEST_DESCRIPTION} bytes.")
    return Description.model_validate_json(text)


def is_packed(path: str | Path) -> bool:
    """Return whether a file says of itself that it is a packed network."""
    if why_no_file(Path(path)) is not None:
        return False
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, safetensors.SafetensorError):
        return False


def _metadata(description: Description, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    bits = sorted({entry.spec.bits for entry in description.map().quantizers.values()})
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "network": str(description.network.get("type")),
        "scale": str(description.scale),
        "bits": ", ".join(map(str, bits)),
        "sha256": _checksum(tensors),
    }


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if (problem := why_no_file(path)) is not None:
        raise CheckpointError(f"The packed network '{path}' {problem}; correct the path.")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        return load(path.read_bytes()), metadata
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"The packed network '{path}' is cut off, damaged or of another kind: {error}. Copy it again."
        ) from error


def _check_metadata(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT or "description" not in tensors:
        raise CheckpointError(
            f"The file '{path}' is no packed network but other weights. Pack a trained network with basicsr/export.py."
        )
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"The packed network '{path}' has the format version {metadata.get('format_version')}; this program reads "
            f"{FORMAT_VERSION}. Use the version of the program that wrote it, or a newer one."
        )
    if metadata.get("sha256") != _checksum(tensors):
        raise CheckpointError(
            f"The packed network '{path}' was changed after it was written: its checksum differs. Copy it again."
        )
