"""Changes of an ONNX graph that leave its values as they are: smaller files, and kernels that move codes in place of floats."""

import sys
from typing import Any

from basicsr.utils.extras import require

_ROUNDING = ("Clip", "Sub", "Mul", "Round", "Add", "QuantizeLinear", "DequantizeLinear")
"""Operators, one element after another, of which `quant.integers.products.ContainedValues` consists."""


def strip_notes(model: Any) -> None:
    """Take out what the exporter notes about source files, stacks and shapes, and the name it gives itself.

    Args:
        model: an `onnx.ModelProto`, changed in place.
    """
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.ClearField("producer_name")
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def share_equal_constants(model: Any) -> None:
    """Keep one of several equal initializers of an `onnx_ir.Model`, such as the masks of all layers."""
    passes = require("onnx_ir.passes.common")
    passes.DeduplicateInitializersPass(size_limit=sys.maxsize)(model)


def round_before_shuffle(model: Any) -> None:
    """Let activations be rounded to their grid before a pixel shuffle, not after it, where one number serves all channels.

    The values are the same, a shuffle only moves them. The convolution before it can then give 8-bit codes by itself, and what is moved
    is a quarter of the bytes, of the largest tensors that an SR network has.

    Args:
        model: an `onnx_ir.Model`, changed in place.
    """
    for shuffle in [node for node in model.graph if node.op_type == "DepthToSpace"]:
        chain = _rounding_after(shuffle)
        if chain:
            _move_behind(shuffle, chain)


def _rounding_after(shuffle: Any) -> list[Any]:
    """Return the operators that round what a shuffle gives; none where they are not there or not the same for all channels."""
    value = shuffle.outputs[0]
    if len(value.uses()) != 1 or value.is_graph_output():
        return []
    return rounding_after(value, value.uses()[0].node)


def rounding_after(value: Any, node: Any) -> list[Any]:
    """Return the operators that round a value, `node` first, up to a DequantizeLinear.

    Args:
        value: an `onnx_ir.Value`.
        node: one that reads it.

    Returns:
        The nodes; none where they are not there, not the same for all elements, or read by others in between.
    """
    chain: list[Any] = []
    while node.op_type in _ROUNDING and all(other is value or is_number(other) for other in node.inputs):
        chain.append(node)
        if node.op_type == "DequantizeLinear":
            return chain
        value = node.outputs[0]
        if len(value.uses()) != 1 or value.is_graph_output():
            return []
        node = value.uses()[0].node
    return []


def is_number(value: Any) -> bool:
    """Return whether a value is one constant number."""
    return value is not None and value.const_value is not None and value.const_value.size == 1


def _move_behind(shuffle: Any, chain: list[Any]) -> None:
    """Put a shuffle behind the operators that follow it; what it gives then has the name of what they gave."""
    before, after, rounded = shuffle.inputs[0], shuffle.outputs[0], chain[-1].outputs[0]
    rounded.replace_all_uses_with(after, replace_graph_outputs=True)
    chain[0].replace_input_with(list(chain[0].inputs).index(after), before)
    shuffle.replace_input_with(0, rounded)
    for node in chain:
        node.outputs[0].shape = before.shape
    name = rounded.name
    rounded.name, after.name = f"{name}_unshuffled", name
    shuffle.graph.remove(shuffle)
    chain[-1].append(shuffle)
