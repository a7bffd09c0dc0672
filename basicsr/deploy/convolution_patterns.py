"""What an ONNX graph of this package says of its convolutions of codes, and of what becomes of their outputs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from basicsr.deploy.graph_editing import array_of, number_of
from basicsr.quant.integers.containers import largest_codes

_KEEPING_SIZE = (
    "Add", "Cast", "Clip", "Concat", "DepthToSpace", "DequantizeLinear", "Div", "LeakyRelu", "Mul", "QLinearLeakyRelu", "QuantizeLinear",
    "Relu", "Sub",
)  # fmt: skip
_LARGEST_BIAS = 2**30
_LARGEST_WEIGHT = largest_codes(8)[1]


def codes_of(value: Any) -> tuple[Any, float, int] | None:
    """Return the codes, the step and the zero point of an activation that is dequantized, with one step; None for others."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
        return None
    step, zero = number_of(node.inputs[1]), number_of(node.inputs[2])
    if node.inputs[0].const_value is not None or step is None or zero is None:
        return None
    return node.inputs[0], step, int(zero)


def attributes_of(node: Any) -> dict[str, Any]:
    """Return the attributes of a node as plain values."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


@dataclass(frozen=True)
class Convolution:
    """A convolution of codes: the node, codes, step and zero point of its input, codes and steps of its weight, its bias."""

    node: Any
    x: Any
    step: float
    zero: int
    codes: np.ndarray
    steps: np.ndarray
    bias: np.ndarray

    @property
    def taps(self) -> int:
        """How many pixels one output sees."""
        return self.codes.shape[2] * self.codes.shape[3]

    @property
    def finer(self) -> "Convolution":
        """The same with weights in smaller steps, half, a quarter and so on, in which a bias can be told better.

        Two products with activations of 255 still fit into 16 bits, for processors that add them there.
        """
        largest = int(np.abs(self.codes.astype(int)).max(initial=1))
        times = 2 ** int(np.log2(max(1, _LARGEST_WEIGHT // largest)))
        return replace(self, codes=(self.codes * times).astype(np.int8), steps=self.steps / np.float32(times))

    def whole_bias(self, scale: float, added: np.ndarray | float) -> np.ndarray | None:
        """Return `bias * scale + added` in whole products of two steps, times `scale`; None where one of them is too large."""
        with np.errstate(all="ignore"):
            whole = np.round((self.bias * scale + added) / (self.step * scale * self.steps.astype(np.float64)))
        return whole.astype(np.int32) if (np.abs(whole) <= _LARGEST_BIAS).all() else None


def integer_weight(conv: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return a convolution's weight as codes and a step for each row, and its bias; None where it has none, or a computed bias."""
    node, bias = conv.inputs[1].producer(), conv.inputs[2] if len(conv.inputs) > 2 else None
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) > 2:
        return None
    codes, steps = array_of(node.inputs[0]), array_of(node.inputs[1])
    if codes is None or steps is None or codes.dtype != np.int8 or len(codes) != steps.size:
        return None
    if bias is None:
        return codes, steps, np.zeros(len(codes))
    values = array_of(bias)
    return None if values is None else (codes, steps, values.astype(np.float64))


def is_plain(conv: Any) -> bool:
    """Whether a convolution has neither steps nor dilation nor groups, and says its padding in numbers."""
    usual: dict[str, Any] = {"group": 1, "strides": (1, 1), "dilations": (1, 1), "auto_pad": "NOTSET"}
    given = attributes_of(conv)
    return "pads" in given and all(_same(given.get(name, value), value) for name, value in usual.items())


def _same(given: Any, usual: Any) -> bool:
    return tuple(given) == usual if isinstance(usual, tuple) else given == usual


def operators_to_picture(conv: Any) -> tuple[list[Any] | None, float, np.ndarray | float]:
    """Return the operators that make the picture of what a convolution gives, and by what they multiply it and what they add.

    None in place of the operators where something else becomes of it. A pixel shuffle may follow them, which is not among them.
    """
    chain: list[Any] = []
    value, scale, added = conv.outputs[0], 1.0, np.zeros((1, 1, 1, 1))
    while not value.is_graph_output():
        node = value.uses()[0].node if len(value.uses()) == 1 else None
        if node is None:
            return None, scale, added
        if node.op_type == "DepthToSpace":
            return chain if node.outputs[0].is_graph_output() else None, scale, added.reshape(-1)
        constant = array_of(node.inputs[1]) if len(node.inputs) == 2 and node.inputs[0] is value else None
        number = number_of(node.inputs[1]) if constant is not None else None
        if node.op_type in ("Mul", "Div") and number:
            factor = number if node.op_type == "Mul" else 1 / number
            scale, added = scale * factor, added * factor
        elif (
            node.op_type in ("Add", "Sub")
            and constant is not None
            and constant.ndim in (0, 3, 4)
            and constant.shape[-2:] in ((), (1, 1))
        ):
            added = added + constant.astype(np.float64) * (1 if node.op_type == "Add" else -1)
        else:
            return None, scale, added
        chain.append(node)
        value = node.outputs[0]
    return chain, scale, added.reshape(-1)


def rounding_of(conv: Any) -> list[Any]:
    """Return the operators from a convolution's output to its codes, QuantizeLinear last; none where something else reads it."""
    chain: list[Any] = []
    value, kinds = conv.outputs[0], ["Relu", "Add", "QuantizeLinear"]
    while len(value.uses()) == 1 and not value.is_graph_output():
        node = value.uses()[0].node
        if node.op_type not in kinds or node.inputs[0] is not value or None in map(number_of, node.inputs[1:]):
            return []
        kinds = kinds[kinds.index(node.op_type) + 1 :]
        chain.append(node)
        if node.op_type == "QuantizeLinear":
            return chain
        value = node.outputs[0]
    return []


def sizes_of_inputs(graph: Any) -> dict[Any, int]:
    """Return for convolutions how many times as high and wide as the picture their input is, where that can be told."""
    sizes: dict[Any, int] = {value: 1 for value in graph.inputs}
    of_convolutions = {}
    for node in graph:
        known = {sizes[value] for value in node.inputs if value in sizes}
        if len(known) != 1 or not _keeps_size(node):
            continue
        (size,) = known
        if node.op_type == "Conv":
            of_convolutions[node] = size
        elif node.op_type == "DepthToSpace":
            size *= node.attributes["blocksize"].as_int()
        sizes[node.outputs[0]] = size
    return of_convolutions


def _keeps_size(node: Any) -> bool:
    """Whether the output of an operator is as high and wide as its input, or a known multiple."""
    if node.op_type == "Conv":
        if not is_plain(node) or "kernel_shape" not in node.attributes:
            return False
        kernel, pads = node.attributes["kernel_shape"].value, node.attributes["pads"].value
        return tuple(pads) == tuple(side // 2 for side in (*kernel, *kernel)) and all(side % 2 for side in kernel)
    if node.op_type == "Gather":  # of a table, by places that are as high and wide
        return node.inputs[0].const_value is not None
    return node.op_type in _KEEPING_SIZE
