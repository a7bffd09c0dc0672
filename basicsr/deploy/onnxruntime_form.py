"""Graphs in the form that ONNX Runtime computes in integers."""

from typing import Any

from basicsr.deploy.channels_last_pass import keep_channels_last
from basicsr.deploy.convolution_pass import IntegerConvolutions
from basicsr.deploy.convolution_patterns import attributes_of, codes_of
from basicsr.deploy.graph_editing import MICROSOFT, Editor
from basicsr.deploy.graph_metadata import add_runtime
from basicsr.deploy.linear_pass import multiply_codes
from basicsr.deploy.rounding_pass import round_in_codes
from basicsr.deploy.table_pass import look_codes_up
from basicsr.utils.extras import require


def onnxruntime_form(model: Any) -> Any:
    """Return a graph with the same values in which ONNX Runtime multiplies integers.

    Where a convolution writes codes, its bias is rounded to a whole number of products of two steps. Where the last one makes the
    picture of codes, that is clipped to 0..1 and rounded to a fraction of a level of 8 bits, see `IntegerConvolutions`. All other
    sums are those of the graph that is given, but for the order of floating-point additions.

    Args:
        model: an `onnx.ModelProto` of `to_onnx`; it stays as it is.
    """
    ir, shapes = require("onnx_ir"), require("onnx.shape_inference")
    changed = ir.serde.deserialize_model(shapes.infer_shapes(model))
    graph, editor = changed.graph, Editor(changed.graph)
    round_in_codes(graph, editor)
    look_codes_up(graph, editor)
    _move_codes(graph, editor)
    IntegerConvolutions(graph, editor).replace()
    multiply_codes(graph, editor)
    keep_channels_last(graph, editor)
    editor.remove_unused()
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
    changed.opset_imports[MICROSOFT] = 1
    proto = ir.serde.serialize_model(changed)
    add_runtime(proto, "onnxruntime")
    return proto


def _move_codes(graph: Any, editor: Editor) -> None:
    """Let pixel shuffles and concatenations move codes, where they move what these stand for."""
    for node in list(graph):
        if node.op_type not in ("DepthToSpace", "Concat"):
            continue
        sources = [codes_of(value) for value in node.inputs]
        if None in sources or len({source[1:] for source in sources}) > 1:  # type: ignore[index]  # no None among them
            continue
        inputs, shape = [source[0] for source in sources], node.outputs[0].shape  # type: ignore[index]
        codes = editor.add(node, node.op_type, inputs, shape=shape, **attributes_of(node))
        grid = node.inputs[0].producer().inputs[1:]
        editor.replace(node, editor.add(node, "DequantizeLinear", [codes, *grid], shape=shape))
