"""What an ONNX graph says of its pictures: written with every graph, checked before a graph is run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.utils.errors import CheckpointError

FORMAT = "basicsr-quant"
INPUT, OUTPUT = "lr", "sr"
# how pictures go in and come out, the same in all graphs; those written before these entries existed are of the same kind
_CONVENTIONS = {"layout": "NCHW", "channels": "RGB", "range": "0..1"}
_REMEDY = "Export the network with basicsr/export.py --onnx."
_MOST_DIGITS = 9
_CHECKSUM, _WITHOUT = "sha256", b"0" * 64
_RUNTIME = "runtime"
_OF_QUANTIZATION = {"QuantizeLinear", "DequantizeLinear", "Round", "SwinLayer"}


@dataclass(frozen=True)
class GraphMetadata:
    """What there is to know before pictures go through a graph.

    Attributes:
        scale: the scale factor.
        size_multiple: heights and widths are multiples of this.
        runtime: the only one that runs the graph; None where any does.
    """

    scale: int
    size_multiple: int
    runtime: str | None = None


def add_metadata(graph: Any, metadata: GraphMetadata) -> None:
    """Write into an `onnx.ModelProto` what it is, and in which layout, order of channels and range it takes pictures."""
    graph.producer_name = FORMAT
    entries = {"format": FORMAT, **_CONVENTIONS, "scale": metadata.scale, "size_multiple": metadata.size_multiple}
    for key, value in entries.items():
        graph.metadata_props.add(key=key, value=str(value))
    if metadata.runtime is not None:
        add_runtime(graph, metadata.runtime)


def add_runtime(graph: Any, runtime: str) -> None:
    """Write into an `onnx.ModelProto` that it is in the form of one runtime."""
    graph.metadata_props.add(key=_RUNTIME, value=runtime)


def sealed(graph: Any) -> bytes:
    """Return an `onnx.ModelProto`, which gets one more entry for it, as bytes of a file that holds its checksum."""
    place = hashlib.sha256(graph.SerializeToString()).hexdigest()  # what the bytes hold only where it is put
    graph.metadata_props.add(key=_CHECKSUM, value=place)
    content = graph.SerializeToString()
    return content.replace(place.encode(), _checksum(content, place).encode())


def check_seal(graph: Any, content: bytes, path: str | Path) -> None:
    """Refuse a graph that was changed after `sealed` wrote it: runtimes take damaged numbers as they are, or break at them.

    Args:
        graph: the `onnx.ModelProto` of the content; one that is of another format is left to `read_metadata`.
        content: of the file.
        path: of the file, for the error.

    Raises:
        CheckpointError: the checksum differs, or there is none.
    """
    entries = _entries(graph)
    if entries.get("format") != FORMAT:
        return
    found = entries.get(_CHECKSUM)
    if found is None:
        raise CheckpointError(
            f"The ONNX graph '{path}' has no checksum: an older version of this program wrote it, or it was changed since. {_REMEDY}"
        )
    if len(found) != len(_WITHOUT) or found != _checksum(content, found):
        raise CheckpointError(
            f"The ONNX graph '{path}' was changed after it was written: its checksum differs. Copy it again. {_REMEDY}"
        )


def read_metadata(graph: Any) -> GraphMetadata:
    """Return what an `onnx.ModelProto` says of itself.

    Raises:
        CheckpointError: it was not written by this package, or takes pictures in another way than graphs of this package do.
    """
    entries = _entries(graph)
    if entries.get("format") != FORMAT:
        raise CheckpointError(
            "The ONNX graph was not written by this package, so that nothing tells its scale factor, nor the order and range of "
            f"its values. {_REMEDY}"
        )
    for key, expected in _CONVENTIONS.items():
        if (found := entries.get(key, expected)) != expected:
            raise CheckpointError(
                f"The ONNX graph takes pictures whose {key} is {found}, but {expected} is what goes in here. {_REMEDY}"
            )
    names = [[value.name for value in values] for values in (graph.graph.input, graph.graph.output)]
    if names != [[INPUT], [OUTPUT]]:
        raise CheckpointError(
            f"The ONNX graph has inputs and outputs named {names[0]} and {names[1]}, but ['{INPUT}'] and ['{OUTPUT}'] are expected. "
            f"{_REMEDY}"
        )
    scale, size_multiple = (_positive(entries, key) for key in ("scale", "size_multiple"))
    return GraphMetadata(scale, size_multiple, entries.get(_RUNTIME))


def is_quantized(graph: Any) -> bool:
    """Return whether an `onnx.ModelProto` rounds values or holds codes."""
    return any(node.op_type in _OF_QUANTIZATION for node in graph.graph.node)


def _checksum(content: bytes, noted: str) -> str:
    """Return the checksum of a file in which this one is noted."""
    return hashlib.sha256(content.replace(noted.encode("utf-8", "replace"), _WITHOUT)).hexdigest()


def _entries(graph: Any) -> dict[str, str]:
    return {_text(entry.key): _text(entry.value) for entry in graph.metadata_props}


def _text(value: str | bytes) -> str:
    """Return a text of a graph; protobuf gives the bytes of one that is damaged."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _positive(entries: dict[str, str], key: str) -> int:
    value = entries.get(key, "")
    if not value.isdecimal() or len(value) > _MOST_DIGITS or int(value) < 1:
        raise CheckpointError(
            f"The ONNX graph says that its {key} is '{value[:40]}', but a whole number of at least 1 is expected. {_REMEDY}"
        )
    return int(value)
