"""Linear layers of codes as one operator of ONNX Runtime, which adds the bias where it has the sum."""

from typing import Any

import numpy as np

from basicsr.deploy.convolution_patterns import codes_of
from basicsr.deploy.graph_editing import MICROSOFT, Editor, array_of


def multiply_codes(graph: Any, editor: Editor) -> None:
    """Replace products of codes and an 8-bit weight, with the addition of a bias that alone reads them.

    ONNX Runtime finds the product by itself, but leaves the addition to another pass over all numbers.

    Args:
        graph: an `onnx_ir.Graph`, changed in place.
        editor: of that graph.
    """
    for node in [node for node in graph if node.op_type == "MatMul"]:
        source, weight = codes_of(node.inputs[0]), _weight_of(node)
        if source is None or weight is None:
            continue
        (x, step, zero), (codes, steps) = source, weight
        uses = node.outputs[0].uses()
        adding = uses[0].node if len(uses) == 1 and uses[0].node.op_type == "Add" else None
        bias = array_of(adding.inputs[1 - uses[0].idx]) if adding is not None else None
        has_bias = bias is not None and bias.shape == steps.shape and not node.outputs[0].is_graph_output()
        grids = [np.float32(step), steps, np.uint8(zero), np.zeros(len(steps), np.int8)]
        inputs = [x, np.ascontiguousarray(codes.T), *grids, *([bias] if has_bias else [])]
        value = editor.add(node, "MatMulIntegerToFloat", inputs, domain=MICROSOFT)
        editor.replace(node, value)
        if has_bias:
            editor.replace(adding, value)


def _weight_of(node: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the codes (rows, columns) of a transposed weight and a step for each row; None where it has none."""
    transpose = node.inputs[1].producer()
    if transpose is None or transpose.op_type != "Transpose" or tuple(transpose.attributes["perm"].value) != (1, 0):
        return None
    dequantize = transpose.inputs[0].producer()
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or len(dequantize.inputs) > 2:
        return None
    codes, steps = map(array_of, dequantize.inputs)
    if codes is None or steps is None or codes.dtype != np.int8 or steps.shape != codes.shape[:1]:
        return None
    return codes, steps
