"""What an ONNX graph says of its pictures: written with every graph, checked before a graph is run."""

from dataclasses import dataclass
from typing import Any

from basicsr.utils.errors import CheckpointError

FORMAT = "basicsr-quant"
INPUT, OUTPUT = "lr", "sr"
# how pictures go in and come out, the same in all graphs; those written before these entries existed are of the same kind
_CONVENTIONS = {"layout": "NCHW", "channels": "RGB", "range": "0..1"}
_REMEDY = "Export the network with basicsr/export.py --onnx."
_MOST_DIGITS = 9
_OF_QUANTIZATION = {"QuantizeLinear", "DequantizeLinear", "Round", "SwinLayer"}


@dataclass(frozen=True)
class GraphMetadata:
    """What there is to know before pictures go through a graph.

    Attributes:
        scale: the scale factor.
        size_multiple: heights and widths are multiples of this.
    """

    scale: int
    size_multiple: int


def add_metadata(graph: Any, metadata: GraphMetadata) -> None:
    """Write into an `onnx.ModelProto` what it is, and in which layout, order of channels and range it takes pictures."""
    graph.producer_name = FORMAT
    entries = {"format": FORMAT, **_CONVENTIONS, "scale": metadata.scale, "size_multiple": metadata.size_multiple}
    for key, value in entries.items():
        graph.metadata_props.add(key=key, value=str(value))


def read_metadata(graph: Any) -> GraphMetadata:
    """Return what an `onnx.ModelProto` says of itself.

    Raises:
        CheckpointError: it was not written by this package, or takes pictures in another way than graphs of this package do.
    """
    entries = {_text(entry.key): _text(entry.value) for entry in graph.metadata_props}
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
    return GraphMetadata(*(_positive(entries, key) for key in ("scale", "size_multiple")))


def is_quantized(graph: Any) -> bool:
    """Return whether an `onnx.ModelProto` rounds values or holds codes."""
    return any(node.op_type in _OF_QUANTIZATION for node in graph.graph.node)


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
