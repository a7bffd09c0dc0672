"""Pixel shuffles of an ONNX graph made cheaper: fewer of the values that they move, and whole pixels instead of single channels.

A shuffle by r gives pixel (r y + i, r x + j) of channel c what channel c r^2 + i r + j holds at (y, x). The values of the graph stay as
they are, but for the order of a convolution's floating-point sums.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from basicsr.utils.extras import require

_VECTOR = 16
"""Output channels that kernels of convolutions compute together, so that fewer take as long."""
_OF_ELEMENTS = ("Add", "Clip", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Relu", "Round", "Sub")


def convolve_before_shuffle(model: Any) -> None:
    """Let a convolution of few output channels work before the shuffle that feeds it, on low-resolution pixels.

    Of 64 channels at high resolution the last convolution of an SR network makes 3. One that makes 12 of the 256 channels at low
    resolution has the same products, among others with zeros, which vectors of 16 channels have room for. What is shuffled are then
    3 channels in place of 64. Only where that costs no more products.

    Args:
        model: an `onnx_ir.Model`, changed in place.
    """
    for shuffle in list(_shuffles(model)):
        conv = _only_reader(shuffle)
        weight = _weight_of(conv) if conv is not None else None
        if conv is None or weight is None or not _is_plain(conv, weight.shape):
            continue
        factor = shuffle.attributes["blocksize"].as_int()
        if _products(weight.shape, factor) > _products(weight.shape, 1):
            continue
        _fold(shuffle, conv, factor)


def shuffle_whole_pixels(model: Any) -> None:
    """Order the channels of a convolution so that the shuffle after it moves all channels of a pixel together.

    In memory the channels of a pixel lie side by side. A shuffle that takes each from another place copies single bytes; one that finds
    the channels of an output pixel beside each other copies vectors.

    Args:
        model: an `onnx_ir.Model`, changed in place.
    """
    for shuffle in _shuffles(model):
        conv = _convolution_before(shuffle)
        weight = _weight_of(conv) if conv is not None else None
        if conv is None or weight is None or _is_shared(conv):
            continue
        squared = shuffle.attributes["blocksize"].as_int() ** 2
        order = np.arange(len(weight)).reshape(-1, squared).T.ravel()
        _replace_rows(model.graph, conv, partial(np.take, indices=order, axis=0))
        shuffle.attributes["mode"] = require("onnx_ir").AttrString("mode", "DCR")


def _shuffles(model: Any) -> Iterator[Any]:
    for node in model.graph:
        if node.op_type == "DepthToSpace" and node.attributes["mode"].as_string() == "CRD":
            yield node


def _only_reader(node: Any) -> Any | None:
    """Return the convolution that alone reads what a node gives, as its input."""
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    return uses[0].node if uses[0].node.op_type == "Conv" and uses[0].idx == 0 else None


def _convolution_before(shuffle: Any) -> Any | None:
    """Return the convolution whose output reaches a shuffle through operators that treat all elements alike."""
    value = shuffle.inputs[0]
    while len(value.uses()) == 1 and not value.is_graph_output() and value.producer() is not None:
        node = value.producer()
        if node.op_type == "Conv":
            return node
        varying = [other for other in node.inputs if not _is_number(other)]
        if node.op_type not in _OF_ELEMENTS or len(varying) != 1:
            break
        value = varying[0]
    return None


def _is_number(value: Any) -> bool:
    return value is None or (value.const_value is not None and value.const_value.size == 1)


def _weight_of(conv: Any) -> np.ndarray | None:
    """Return the weight of a convolution as it is stored: floats, or codes that have a step for each row; None if it is no constant."""
    stored = conv.inputs[1]
    if stored.const_value is None and stored.producer() is not None and stored.producer().op_type == "DequantizeLinear":
        codes, steps = stored.producer().inputs[:2]
        if (
            len(stored.producer().inputs) > 2
            or steps.const_value is None
            or stored.producer().attributes["axis"].as_int()
        ):
            return None
        stored = codes
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if stored.const_value is None or (bias is not None and bias.const_value is None):
        return None
    return stored.const_value.numpy()


def _is_shared(conv: Any) -> bool:
    """Whether another layer reads the weight's dequantized values, too."""
    return conv.inputs[1].producer() is not None and len(conv.inputs[1].uses()) > 1


def _is_plain(conv: Any, shape: tuple[int, ...]) -> bool:
    """Whether a convolution is square, gives an image of the size of its input, and has no steps, dilation or groups."""
    side = shape[2]
    wanted = {"group": 1, "strides": (1, 1), "dilations": (1, 1), "pads": (side // 2,) * 4}
    given = {name: conv.attributes[name].value for name in wanted if name in conv.attributes}
    return (
        shape[3] == side and side % 2 == 1 and given == wanted and conv.attributes["auto_pad"].as_string() == "NOTSET"
    )


def _products(shape: tuple[int, ...], factor: int) -> int:
    """Return what the products of a convolution cost for a pixel before a shuffle, if it works there (`factor`), or after it (1)."""
    outputs, inputs, side, _ = shape
    reach = _reach(side, factor)
    return -(-outputs * factor**2 // _VECTOR) * inputs * (2 * reach + 1) ** 2


def _reach(side: int, factor: int) -> int:
    """Return how many low-resolution pixels away the taps at high resolution lie."""
    return -(-(side // 2) // factor)


def _fold(shuffle: Any, conv: Any, factor: int) -> None:
    """Put a convolution, and the operators for single elements that follow it, in front of the shuffle that fed it."""
    graph, squared = conv.graph, factor**2
    _replace_rows(graph, conv, lambda rows: np.repeat(rows, squared, axis=0), lambda w: _at_low_resolution(w, factor))
    side = 2 * _reach(conv.attributes["kernel_shape"].value[0], factor) + 1
    ir = require("onnx_ir")
    conv.attributes["pads"] = ir.AttrInt64s("pads", [side // 2] * 4)
    conv.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [side, side])
    conv.replace_input_with(0, shuffle.inputs[0])
    chain = [conv, *_elements_after(conv)]
    for node in chain[1:]:
        _repeat_channels(graph, node, squared)
    _put_behind(shuffle, chain)


def _at_low_resolution(weight: np.ndarray, factor: int) -> np.ndarray:
    """Return the weight (out, in, k, k) of a convolution at high resolution as one (out r^2, in r^2, k', k') at low resolution."""
    outputs, inputs, side, _ = weight.shape
    reach = _reach(side, factor)
    moved = np.zeros((outputs, factor, factor, inputs, factor, factor, 2 * reach + 1, 2 * reach + 1), weight.dtype)
    for row, column in np.ndindex(factor, factor):
        for v, u in np.ndindex(side, side):
            (dy, i), (dx, j) = (divmod(at + tap - side // 2, factor) for at, tap in ((row, v), (column, u)))
            moved[:, row, column, :, i, j, dy + reach, dx + reach] = weight[:, :, v, u]
    return moved.reshape(outputs * factor**2, inputs * factor**2, 2 * reach + 1, 2 * reach + 1)


def _elements_after(conv: Any) -> list[Any]:
    """Return the operators, one after another, that treat the elements of what a convolution gives by constants of each channel."""
    chain: list[Any] = []
    value = conv.outputs[0]
    while len(value.uses()) == 1 and not value.is_graph_output():
        node = value.uses()[0].node
        if node.op_type not in _OF_ELEMENTS or not all(
            other is value or _is_number(other) or _is_of_channels(other) for other in node.inputs
        ):
            break
        chain.append(node)
        value = node.outputs[0]
    return chain


def _is_of_channels(value: Any) -> bool:
    """Whether a value is a constant of the shape (1, channels, 1, 1) or (channels, 1, 1)."""
    shape: tuple[int, ...] = tuple(value.const_value.shape) if value.const_value is not None else ()
    return len(shape) in (3, 4) and list(shape[-2:]) == [1, 1] and (len(shape) == 3 or shape[0] == 1)


def _repeat_channels(graph: Any, node: Any, times: int) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and not _is_number(value) and _is_of_channels(value):
            array = value.const_value.numpy()
            _replace_constant(graph, node, index, np.repeat(array, times, axis=array.ndim - 3))


def _put_behind(shuffle: Any, chain: list[Any]) -> None:
    """Put a shuffle behind a chain that reads what it read; what it gives then has the name of what the chain gave."""
    last, after = chain[-1].outputs[0], shuffle.outputs[0]
    last.replace_all_uses_with(after, replace_graph_outputs=True)
    after.shape, after.type = last.shape, last.type
    for node in chain:
        node.outputs[0].shape = None
    shuffle.replace_input_with(0, last)
    name = last.name
    last.name, after.name = f"{name}_unshuffled", name
    shuffle.graph.remove(shuffle)
    chain[-1].append(shuffle)


def _replace_rows(
    graph: Any,
    conv: Any,
    of_rows: Callable[[np.ndarray], np.ndarray],
    of_weight: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Change the weight of a convolution, by `of_weight` or else as its rows, and what it has for each row: steps and bias."""
    of_weight = of_weight or of_rows
    holder, index = conv, 1
    if conv.inputs[1].const_value is None:
        holder, index = conv.inputs[1].producer(), 0
        _replace_constant(graph, holder, 1, of_rows(holder.inputs[1].const_value.numpy()))
        holder.outputs[0].shape = None
    _replace_constant(graph, holder, index, of_weight(holder.inputs[index].const_value.numpy()))
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        _replace_constant(graph, conv, 2, of_rows(conv.inputs[2].const_value.numpy()))


def _replace_constant(graph: Any, node: Any, index: int, array: np.ndarray) -> None:
    """Give a node another constant; the old one goes if nobody else reads it."""
    ir = require("onnx_ir")
    old = node.inputs[index]
    tensor = ir.tensor(np.ascontiguousarray(array), name=f"{old.name}_of_{node.outputs[0].name}")
    value = ir.Value(name=tensor.name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    node.replace_input_with(index, value)
    if not old.uses() and old.name in graph.initializers:
        del graph.initializers[old.name]
