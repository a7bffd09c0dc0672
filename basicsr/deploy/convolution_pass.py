"""Convolutions of codes as ONNX Runtime computes them in integers.

It multiplies integers in a convolution only where the output is rounded, too. Products of matrices of codes it gives as floating-point
numbers, with the step of each column and the bias, so that any other convolution becomes one: no output needs a grid of its own.
"""

from typing import Any

import numpy as np

from basicsr.deploy.channels_last_pass import to_channels_first, to_channels_last
from basicsr.deploy.convolution_patterns import (
    Convolution,
    attributes_of,
    codes_of,
    integer_weight,
    is_plain,
    operators_to_picture,
    rounding_of,
    sizes_of_inputs,
)
from basicsr.deploy.graph_editing import MICROSOFT, Editor, number_of

_MOST_COPIES = 72
"""Copies of input channels for each output channel, above which what the taps see takes too much memory to be laid out."""
_FEWEST_CHANNELS = 16
"""Channels of an input, below which its pixels are too small to be copied one by one."""
_ROWS_TOGETHER = 48
"""Output channels that a convolution may have in place of a few and take hardly longer."""
_LEVELS = 255


class IntegerConvolutions:
    """Replaces the convolutions of codes in a graph, each by the form that is fastest.

    | what reads the output | what it becomes |
    |---|---|
    | a rounding to codes | QLinearConv, which writes these codes |
    | anything else | a product of matrices, whose rows are what the taps see, in floating point |
    | the picture, of many channels | QLinearConv, whose channels are copies, each of a fraction of a level further |
    | anything else, of many channels | a convolution in floating point |

    The rounded copies of a value that lie an odd number of equal fractions of a level apart sum up to that value, rounded to such fractions.
    Of these, a picture of 8 bits is the same as of the value itself.

    Args:
        graph: an `onnx_ir.Graph`, changed in place.
        editor: of that graph.
    """

    def __init__(self, graph: Any, editor: Editor) -> None:
        self._graph, self._editor = graph, editor
        self._sizes = sizes_of_inputs(graph)
        self._places: dict[tuple[Any, ...], Any] = {}

    def replace(self) -> None:
        """Replace them all."""
        for node in [node for node in self._graph if node.op_type == "Conv"]:
            source, weight = codes_of(node.inputs[0]), integer_weight(node)
            if weight is None:
                continue
            conv = None if source is None or not is_plain(node) else Convolution(node, *source, *weight)
            if conv is None or not (
                self._round_output(conv.finer) or self._multiply(conv) or self._round_picture(conv.finer)
            ):
                # with a weight that is computed it would get a slow kernel
                values = weight[0].astype(np.float32) * weight[1].reshape(-1, 1, 1, 1)
                self._editor.constant_input(node, 1, values)

    def _round_output(self, conv: Convolution) -> bool:
        """Let a convolution write codes, where its output is only rounded; returns whether it is."""
        chain = rounding_of(conv.node)
        if not chain:
            return False
        quantize = chain[-1]
        step, zero = (number_of(value) for value in quantize.inputs[1:])
        shift = next((number_of(node.inputs[1]) for node in chain if node.op_type == "Add"), 0.0)
        assert step is not None and zero is not None and shift is not None
        bias = conv.whole_bias(1.0, shift)
        if bias is None:
            return False
        value = self._convolved(quantize, conv, conv.codes, conv.steps, bias, (step, int(zero)))
        value = to_channels_first(self._editor, quantize, value)
        lowest = int(np.clip(round(shift / step) + zero, 0, _LEVELS)) if chain[0].op_type == "Relu" else 0
        if lowest:
            value = self._at_least(lowest, value, quantize)
        self._editor.replace(quantize, value)
        for node in (*reversed(chain[:-1]), conv.node):
            self._graph.remove(node, safe=True)
        return True

    def _convolved(
        self,
        before: Any,
        conv: Convolution,
        codes: np.ndarray,
        steps: np.ndarray,
        bias: np.ndarray,
        grid: tuple[float, int],
    ) -> Any:
        """Return the codes, channels last, that a convolution with the input and the pads of `conv` writes."""
        x = to_channels_last(self._editor, before, conv.x)
        inputs = [
            x,
            np.float32(conv.step),
            np.uint8(conv.zero),
            codes,
            steps.astype(np.float32),
            np.zeros(len(codes), np.int8),
        ]
        pads = attributes_of(conv.node)["pads"]
        return self._editor.add(
            before, "QLinearConv", [*inputs, np.float32(grid[0]), np.uint8(grid[1]), bias],
            domain=MICROSOFT, channels_last=1, pads=pads, kernel_shape=codes.shape[2:],
        )  # fmt: skip

    def _at_least(self, lowest: int, codes: Any, quantize: Any) -> Any:
        """Return codes of at least a number: by what limits the codes of a QuantizeLinear already, or by a new operator."""
        uses = quantize.outputs[0].uses()
        if len(uses) == 1 and uses[0].node.op_type == "Clip":
            low = number_of(uses[0].node.inputs[1])
            assert low is not None
            self._editor.constant_input(uses[0].node, 1, np.array(max(lowest, int(low)), np.uint8))
            return codes
        return self._editor.add(quantize, "Clip", [codes, np.uint8(lowest), np.uint8(_LEVELS)])

    def _round_picture(self, conv: Convolution) -> bool:
        """Let a convolution that makes the picture write codes, in copies; returns whether it makes the picture."""
        chain, scale, added = operators_to_picture(conv.node)
        rows = len(conv.codes)
        copies = (_ROWS_TOGETHER // rows - 1) // 2 * 2 + 1  # the most that are odd
        if chain is None or copies < 1 or scale <= 0:
            return False
        moves = (np.arange(copies) - copies // 2) / copies / _LEVELS
        biases = [bias for move in moves if (bias := conv.whole_bias(scale, added + move)) is not None]
        if len(biases) < copies:
            return False
        codes = np.concatenate([conv.codes] * copies)
        steps = np.concatenate([conv.steps.astype(np.float64) * scale] * copies)
        last = chain[-1] if chain else conv.node
        levels = self._convolved(last, conv, codes, steps, np.concatenate(biases), (1 / _LEVELS, 0))
        sums = np.tile(np.eye(rows, dtype=np.int8), (copies, 1))
        scales = [np.float32(1 / (_LEVELS * copies)), np.float32(1)]
        value = self._editor.add(last, "MatMulIntegerToFloat", [levels, sums, *scales], domain=MICROSOFT)
        self._editor.replace(last, to_channels_first(self._editor, last, value))
        for node in (*reversed(chain[:-1]), conv.node):
            if node.graph is not None:
                self._graph.remove(node, safe=True)
        return True

    def _multiply(self, conv: Convolution) -> bool:
        """Let a convolution be a product of matrices, whose rows are what the taps see; returns whether that is worth it."""
        rows, channels = conv.codes.shape[:2]
        if conv.taps > 1 and (channels < _FEWEST_CHANNELS or conv.taps * channels > _MOST_COPIES * rows):
            return False
        seen = to_channels_last(self._editor, conv.node, conv.x)
        if conv.taps > 1:
            seen = self._seen(conv, seen)
        weight = conv.codes.transpose(2, 3, 1, 0).reshape(-1, rows)
        grids = [np.float32(conv.step), conv.steps.astype(np.float32), np.uint8(conv.zero), np.zeros(rows, np.int8)]
        inputs = [seen, weight, *grids, conv.bias.astype(np.float32)]
        value = self._editor.add(conv.node, "MatMulIntegerToFloat", inputs, domain=MICROSOFT)
        if conv.taps > 1:
            value = self._editor.add(conv.node, "Unsqueeze", [value, np.array([0])])
        self._editor.replace(conv.node, to_channels_first(self._editor, conv.node, value))
        return True

    def _seen(self, conv: Convolution, x: Any) -> Any:
        """Return what the taps see of codes (1, h, w, channels), as (h, w, taps * channels)."""
        node, (_, channels, height, width) = conv.node, conv.codes.shape
        top, left, bottom, right = attributes_of(node)["pads"]
        pads = np.array([0, top, left, 0, 0, bottom, right, 0])
        padded = self._editor.add(node, "Pad", [x, pads, np.uint8(conv.zero)])
        key = (self._sizes.get(node, node), height, width, top, left, bottom, right)
        if key not in self._places:
            self._places[key] = self._places_of_taps(node, padded, height, width)
        pixels = self._editor.add(node, "Reshape", [padded, np.array([-1, channels])])
        seen = self._editor.add(node, "Gather", [pixels, self._places[key]], axis=0)
        return self._editor.add(node, "Reshape", [seen, np.array([0, 0, conv.taps * channels])])

    def _places_of_taps(self, before: Any, padded: Any, height: int, width: int) -> Any:
        """Return at which pixels of a padded picture (1, h, w, channels) the taps lie, (h', w', taps)."""

        def add(kind: str, *inputs: Any) -> Any:
            return self._editor.add(before, kind, list(inputs))

        shape = add("Shape", padded)
        columns = add("Gather", shape, np.array(2))
        firsts = [
            add("Range", np.array(0), add("Sub", add("Gather", shape, np.array(axis)), np.array(side - 1)), np.array(1))
            for axis, side in ((1, height), (2, width))
        ]
        y, x = np.divmod(np.arange(height * width), width)
        taps = add("Add", add("Mul", y, columns), x)
        starts = add("Reshape", add("Mul", firsts[0], columns), np.array([-1, 1, 1]))
        return add("Add", add("Add", starts, add("Reshape", firsts[1], np.array([-1, 1]))), taps)
