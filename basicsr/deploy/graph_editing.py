"""Adding operators and constants to an ONNX graph, as an `onnx_ir` model."""

from typing import Any

import numpy as np

from basicsr.utils.extras import require

MICROSOFT = "com.microsoft"
"""The domain of the operators that ONNX Runtime has beyond the standard."""


def number_of(value: Any) -> float | None:
    """Return what an input holds that is one constant number; None where it is something else."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(()))


def array_of(value: Any) -> np.ndarray | None:
    """Return what a constant input holds; None where it is something else."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


class Editor:
    """Puts operators into a graph, each with a name that no other has.

    Args:
        graph: an `onnx_ir.Graph`, changed in place.
    """

    def __init__(self, graph: Any) -> None:
        self._graph, self._ir, self._count = graph, require("onnx_ir"), 0

    def add(
        self, before: Any, kind: str, inputs: list[Any], domain: str = "", shape: Any = None, **attributes: Any
    ) -> Any:
        """Put an operator in front of a node.

        Args:
            before: the node.
            kind: of the operator.
            inputs: values of the graph, or arrays, which become constants.
            domain: of the operator.
            shape: of the output, where it is known.
            attributes: of the operator.

        Returns:
            Its output.
        """
        values = [self._constant(value) if isinstance(value, np.ndarray | np.generic) else value for value in inputs]
        node = self._ir.node(kind, values, attributes=attributes, domain=domain)
        node.outputs[0].name, node.outputs[0].shape = self._name(kind), shape
        before.prepend(node)
        return node.outputs[0]

    def replace(self, node: Any, value: Any) -> None:
        """Take a node out; what read its output reads a value instead."""
        old, name = node.outputs[0], node.outputs[0].name
        is_output = old.is_graph_output()
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        if is_output:
            value.name, value.shape, value.type = name, old.shape, old.type

    def constant_input(self, node: Any, index: int, array: np.ndarray) -> None:
        """Give a node a constant as an input."""
        node.replace_input_with(index, self._constant(array))

    def remove_unused(self) -> None:
        """Take out what nobody reads: nodes, and constants."""
        for node in reversed(list(self._graph)):
            if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                self._graph.remove(node, safe=True)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses():
                del self._graph.initializers[name]

    def _constant(self, array: Any) -> Any:
        tensor = self._ir.tensor(np.array(array, order="C"), name=self._name("constant"))
        value = self._ir.Value(
            name=tensor.name, const_value=tensor, shape=tensor.shape, type=self._ir.TensorType(tensor.dtype)
        )
        self._graph.register_initializer(value)
        return value

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"runtime_{kind}_{self._count}"
