"""Tables that give activations their points hold codes, as ONNX Runtime does it fastest."""

from typing import Any

import numpy as np

from basicsr.deploy.graph_editing import Editor, array_of, number_of


def look_codes_up(graph: Any, editor: Editor) -> None:
    """Look 8-bit codes up where such codes are made of what a table gives; the table itself stays for what else reads its numbers.

    OpenVINO lowers a convolution to integers only behind a QuantizeLinear, so that graphs have tables of floating-point numbers.

    Args:
        graph: an `onnx_ir.Graph`, changed in place.
        editor: of that graph.
    """
    for node in [node for node in graph if node.op_type == "QuantizeLinear"]:
        gather = node.inputs[0].producer()
        table = array_of(gather.inputs[0]) if gather is not None and gather.op_type == "Gather" else None
        step, zero = number_of(node.inputs[1]), number_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if table is None or table.dtype != np.float32 or step is None or zero is None:
            continue
        codes = np.clip(np.round(table / np.float32(step)) + zero, 0, 255).astype(np.uint8)
        shape = node.outputs[0].shape
        editor.replace(node, editor.add(node, "Gather", [codes, gather.inputs[1]], shape=shape, axis=0))
