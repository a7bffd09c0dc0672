"""Activations are rounded by one QuantizeLinear in place of several operators in floating point, as ONNX Runtime does it fastest."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from basicsr.deploy.graph_editing import MICROSOFT, Editor, array_of, number_of

_LARGEST = 255


@dataclass(frozen=True)
class _Rounding:
    """Operators that round, one after another, and what they come to.

    The code of x is c = round((x + offset) / step) + zero, limited to `low` .. `high`. A grid of whole fractions of the step has
    `first + times * c` in its place.
    """

    nodes: list[Any]
    offset: float
    step: float
    zero: int
    low: int
    high: int
    times: int = 1
    first: int = 0


def round_in_codes(graph: Any, editor: Editor) -> None:
    """Let each chain of operators that rounds to a grid of at most 256 values make 8-bit codes at once.

    OpenVINO lowers a grid of 256 levels only, so that graphs hold a clip, a rounding and a shift in floating point. ONNX Runtime
    limits codes themselves, a quarter of the bytes. Values that lie between two codes may fall to the other one, as sums differ.

    Args:
        graph: an `onnx_ir.Graph`, changed in place.
        editor: of that graph.
    """
    for node in list(graph):
        if (
            node.graph is not None
            and node.op_type == "Clip"
            and None not in map(number_of, node.inputs[1:])
            and len(node.inputs) == 3
        ):
            nodes = _chain_from(node)
            if nodes[-1].op_type == "DequantizeLinear":
                _replace_quantized(nodes, editor)
            else:
                _replace_floats(nodes, editor)


def _chain_from(clip: Any) -> list[Any]:
    """Return the operators that round what a clip limits, that one first, as far as each is read by the next one alone."""
    following = ("Sub", "Mul", "Round", "Mul", "Add", "QuantizeLinear", "DequantizeLinear")
    nodes, place = [clip], 0
    while len(nodes[-1].outputs[0].uses()) == 1 and not nodes[-1].outputs[0].is_graph_output():
        value, node = nodes[-1].outputs[0], nodes[-1].outputs[0].uses()[0].node
        if (
            node.op_type not in following[place:]
            or node.inputs[0] is not value
            or None in map(number_of, node.inputs[1:])
        ):
            break
        place = following.index(node.op_type, place) + 1
        nodes.append(node)
    return nodes


def _numbers(nodes: list[Any]) -> list[float]:
    """Return the constant number of each node that has one, in order."""
    return [number for node in nodes for number in map(number_of, node.inputs) if number is not None]


def _rounded_in_floats(nodes: list[Any]) -> tuple[float, float, float, float] | None:
    """Return (start, inverse, step, shift) of operators that make round((x - start) * inverse) * step + shift; None for others."""
    kinds, numbers = [node.op_type for node in nodes], _numbers(nodes)
    start = numbers.pop(0) if kinds[:1] == ["Sub"] else 0.0
    shift = numbers.pop() if kinds[-1:] == ["Add"] else 0.0
    kinds = [kind for kind in kinds if kind not in ("Sub", "Add")]
    if kinds not in (["Mul", "Round"], ["Mul", "Round", "Mul"]):
        return None
    return start, numbers[0], numbers[1] if len(numbers) > 1 else 1.0, shift


def _replace_quantized(nodes: list[Any], editor: Editor) -> None:
    """Replace what stands in front of a DequantizeLinear."""
    (lower, upper), (fine, zero) = _numbers(nodes[:1]), _numbers(nodes[-2:-1])
    between = nodes[1:-2]
    rounded = _rounded_in_floats(between)
    if [node.op_type for node in between] in ([], ["Add"]):
        shift = sum(_numbers(between))
        low, high = (int(np.clip(round((bound + shift) / fine) + zero, 0, _LARGEST)) for bound in (lower, upper))
        rounding = _Rounding(nodes, shift, fine, int(zero), low, high)
    elif rounded is not None:
        start, inverse, step, shift = rounded
        codes, times, first = round((upper - start) * inverse), round(step / fine), round(shift / fine) + int(zero)
        rounding = _Rounding(nodes, -start, step, 0, 0, codes, times, first)
    else:
        return
    nodes[-1].replace_input_with(0, _codes(rounding, nodes[-1], editor))
    _remove(nodes[:-1])


def _replace_floats(nodes: list[Any], editor: Editor) -> None:
    """Replace a chain that ends in floating point: by codes, their values, and what is added to these."""
    rounded = _rounded_in_floats(nodes[1:])
    if rounded is None:
        return
    (start, inverse, step, shift), upper, last = rounded, _numbers(nodes[:1])[-1], nodes[-1]
    codes = round((upper - start) * inverse)
    if not 0 < codes <= _LARGEST:
        return
    value = _codes(_Rounding(nodes, -start, 1 / inverse, 0, 0, codes), last, editor)
    value = editor.add(last, "DequantizeLinear", [value, np.float32(step), np.uint8(0)])
    if shift:
        value = editor.add(last, "Add", [value, np.float32(shift)])
    editor.replace(last, value)
    _remove(nodes[:-1])


def _codes(rounding: _Rounding, before: Any, editor: Editor) -> Any:
    """Return the codes of what a chain rounds, made by new operators in front of a node."""
    value = rounding.nodes[0].inputs[0]
    shape = value.shape
    zero, low, high = rounding.zero, rounding.low, rounding.high
    if rounding.times == 1:
        zero, low, high = (number + rounding.first for number in (zero, low, high))
    if rounding.offset and not _added_before(value, rounding.offset, editor):
        value = editor.add(before, "Add", [value, np.float32(rounding.offset)], shape=shape)
    value = editor.add(before, "QuantizeLinear", [value, np.float32(rounding.step), np.uint8(zero)], shape=shape)
    if (low, high) != (0, _LARGEST):
        value = editor.add(before, "Clip", [value, np.uint8(low), np.uint8(high)], shape=shape)
    if rounding.times > 1:
        # with a slope of 1 it is a table from codes to codes, the only one that there is: first + times * code
        grids = [np.float32(rounding.times), np.uint8(0), np.float32(1), np.uint8(rounding.first)]
        value = editor.add(before, "QLinearLeakyRelu", [value, *grids], domain=MICROSOFT, shape=shape, alpha=1.0)
    return value


def _added_before(value: Any, offset: float, editor: Editor) -> bool:
    """Add a number to what a normalisation gives, by its bias, where nobody else reads it; returns whether that was possible."""
    node = value.producer()
    if node is None or node.op_type != "LayerNormalization" or len(value.uses()) > 1 or len(node.inputs) < 3:
        return False
    bias = array_of(node.inputs[2])
    if bias is None:
        return False
    editor.constant_input(node, 2, (bias.astype(np.float64) + offset).astype(np.float32))
    return True


def _remove(nodes: list[Any]) -> None:
    for node in reversed(nodes):
        if not node.outputs[0].uses():
            node.graph.remove(node, safe=True)
