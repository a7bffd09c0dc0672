"""Pictures stay in the order in which the channels of a pixel lie side by side, from one product of codes to the next.

ONNX Runtime moves transpositions by itself, but not past a sum with something that has the other order, as residual blocks have it.
"""

from typing import Any

import numpy as np

from basicsr.deploy.graph_editing import Editor, array_of

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_OF_ELEMENTS = (
    "Add", "Clip", "Div", "LeakyRelu", "Mul", "QLinearLeakyRelu", "QuantizeLinear", "Relu", "Sub",
)  # fmt: skip
_RANK = 4


def to_channels_last(editor: Editor, before: Any, value: Any) -> Any:
    """Return a picture (n, channels, h, w) as (n, h, w, channels), made in front of a node."""
    return editor.add(before, "Transpose", [value], perm=_LAST)


def to_channels_first(editor: Editor, before: Any, value: Any) -> Any:
    """Return a picture (n, h, w, channels) as (n, channels, h, w), made in front of a node."""
    return editor.add(before, "Transpose", [value], perm=_FIRST)


def keep_channels_last(graph: Any, editor: Editor) -> None:
    """Move transpositions towards the output, through operators for single elements, concatenations and pixel shuffles, until they cancel.

    Args:
        graph: an `onnx_ir.Graph`, its nodes in an order in which they can be computed, changed in place. The shapes of what it was
            made with are known; new values are those of `to_channels_last` and `to_channels_first`, and what leads to them.
        editor: of that graph.
    """
    transposed: dict[Any, Any] = {}

    def last_of(value: Any, before: Any) -> Any:
        """Return a picture with its channels last, which it may have been before."""
        inner = _inside(value)
        if inner is not None:
            return inner
        if value not in transposed:
            transposed[value] = to_channels_last(editor, before, value)
        return transposed[value]

    for node in list(graph):
        pictures = [value for value in node.inputs if value is not None and array_of(value) is None]
        if _permutation(node) == _LAST:
            if _inside(pictures[0]) is not None or pictures[0] in transposed:
                editor.replace(node, last_of(pictures[0], node))
            else:
                transposed[pictures[0]] = node.outputs[0]
        elif any(_inside(value) is not None for value in pictures) and all(map(_is_picture, pictures)):
            changed = _with_channels_last(node, editor, last_of)
            if changed is not None:
                editor.replace(node, to_channels_first(editor, node, changed))


def _with_channels_last(node: Any, editor: Editor, last_of: Any) -> Any | None:
    """Return the output of an operator with its channels last; None where the operator is of another kind."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    if node.op_type == "DepthToSpace" and attributes.get("mode") == "DCR":
        return _shuffled(node, last_of(node.inputs[0], node), attributes["blocksize"], editor)
    if node.op_type == "Concat" and attributes["axis"] == 1:
        attributes["axis"] = _RANK - 1
    elif node.op_type not in _OF_ELEMENTS:
        return None
    inputs = [_constant_last(value) if array_of(value) is not None else last_of(value, node) for value in node.inputs]
    if any(value is None for value in inputs):
        return None
    if node.op_type == "QuantizeLinear":
        attributes.pop("axis", None)  # of a step for each channel, which has no number
    return editor.add(node, node.op_type, inputs, domain=node.domain, **attributes)


def _constant_last(value: Any) -> Any | None:
    """Return a constant with its channels last: one number as it is; None where it has another shape than (1, channels, 1, 1)."""
    array = array_of(value)
    assert array is not None
    if array.size == 1:
        return value
    return np.ascontiguousarray(array.transpose(_LAST)) if array.ndim == _RANK else None


def _shuffled(node: Any, pixels: Any, factor: int, editor: Editor) -> Any:
    """Return a pixel shuffle of (1, h, w, factor * factor * channels), which moves whole pixels."""

    def add(kind: str, *inputs: Any, **attributes: Any) -> Any:
        return editor.add(node, kind, list(inputs), **attributes)

    size = add("Slice", add("Shape", pixels), np.array([0]), np.array([3]))
    parted = add("Reshape", pixels, add("Concat", size, np.array([factor, factor, -1]), axis=0))
    moved = add("Transpose", parted, perm=[0, 1, 3, 2, 4, 5])  # 1, h, factor, w, factor, channels
    larger = add("Concat", add("Mul", size, np.array([1, factor, factor])), np.array([-1]), axis=0)
    return add("Reshape", moved, larger)


def _permutation(node: Any) -> list[int] | None:
    return list(node.attributes["perm"].value) if node.op_type == "Transpose" and "perm" in node.attributes else None


def _inside(value: Any) -> Any | None:
    """Return the picture with channels last that a value is made of, if it is."""
    node = value.producer()
    return node.inputs[0] if node is not None and _permutation(node) == _FIRST else None


def _is_picture(value: Any) -> bool:
    """Whether a value is known to have the four dimensions of a picture."""
    return _inside(value) is not None or (value.shape is not None and len(value.shape) == _RANK)
