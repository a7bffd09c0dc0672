"""Changes of an ONNX graph that leave its values as they are: smaller files, and kernels that move codes in place of floats."""

import math
from collections import Counter
from typing import Any

_ROUNDING = ("Clip", "Sub", "Mul", "Round", "Add", "QuantizeLinear", "DequantizeLinear")
"""Operators, one element after another, of which `quant.integers.products.ContainedValues` consists."""


def strip_notes(model: Any) -> None:
    """Take out what the exporter notes about source files, stacks and shapes, and the name it gives itself.

    Args:
        model: an `onnx.ModelProto`, changed in place; so in all functions of this file.
    """
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.ClearField("producer_name")
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def share_equal_constants(model: Any) -> None:
    """Keep one of several equal initializers, such as the masks of all layers."""
    first: dict[tuple[Any, ...], str] = {}
    renamed: dict[str, str] = {}
    for tensor in list(model.graph.initializer):
        content = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        kept = first.setdefault(content, tensor.name)
        if tensor.raw_data and kept != tensor.name:
            renamed[tensor.name] = kept
            model.graph.initializer.remove(tensor)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)


def round_before_shuffle(model: Any) -> None:
    """Let activations be rounded to their grid before a pixel shuffle, not after it, where one number serves all channels.

    The values are the same, a shuffle only moves them. The convolution before it can then give 8-bit codes by itself, and what is moved
    is a quarter of the bytes, of the largest tensors that an SR network has.
    """
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(output.name for output in model.graph.output)
    numbers = {tensor.name for tensor in model.graph.initializer if math.prod(tensor.dims) == 1}
    for shuffle in [node for node in model.graph.node if node.op_type == "DepthToSpace"]:
        chain = _rounding_after(shuffle, list(model.graph.node), readers, numbers)
        if chain:
            _move_behind(shuffle, chain, model.graph)


def _rounding_after(shuffle: Any, nodes: list[Any], readers: Counter[str], numbers: set[str]) -> list[Any]:
    """Return the operators that round what a shuffle gives; none where they are not there or not the same for all channels."""
    chain: list[Any] = []
    value = shuffle.output[0]
    while readers[value] == 1:
        node = next((node for node in nodes if value in node.input), None)
        if node is None or node.op_type not in _ROUNDING or not numbers.issuperset(set(node.input) - {value}):
            break
        chain.append(node)
        value = node.output[0]
        if node.op_type == "DequantizeLinear":
            return chain
    return []


def _move_behind(shuffle: Any, chain: list[Any], graph: Any) -> None:
    """Put a shuffle behind the operators that follow it."""
    before, after, rounded = shuffle.input[0], shuffle.output[0], chain[-1].output[0]
    chain[0].input[list(chain[0].input).index(after)] = before
    chain[-1].output[0] = f"{rounded}_unshuffled"
    moved = type(shuffle).FromString(shuffle.SerializeToString())
    moved.input[0], moved.output[0] = chain[-1].output[0], rounded
    graph.node.insert(list(graph.node).index(chain[-1]) + 1, moved)
    graph.node.remove(shuffle)
