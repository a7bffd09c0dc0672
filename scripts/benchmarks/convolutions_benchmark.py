"""Forms in which ONNX Runtime can be given convolutions of codes, and what each costs: eight of 64 to 64 channels, one after another.

Only where the output is quantized, too, does it have a fast kernel. Milliseconds are those of the processor, on one thread.
"""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

LAYERS, CHANNELS, SIDE, ROUNDS = 8, 64, 128, 7
_GEOMETRY = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}


def run() -> str:
    """Return a Markdown table."""
    graphs: dict[str, Callable[[], Graph]] = {
        "float32": float_graph,
        "quantized outputs (QLinearConv)": partial(quantized_graph, np.uint8),
        "quantized outputs, signed": partial(quantized_graph, np.int8),
        "outputs in float32 (ConvInteger)": integer_graph,
    }
    sessions = {name: graph().session() for name, graph in graphs.items()}
    x = np.random.default_rng(1).random((1, CHANNELS, SIDE, SIDE), dtype=np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS + 1):
        for name, (session, _) in sessions.items():
            started = time.process_time()
            session.run(None, {"x": x})
            times[name].append(1e3 * (time.process_time() - started))
    rows = [
        f"{LAYERS} convolutions of {CHANNELS} to {CHANNELS} channels, {SIDE} x {SIDE}, with ReLU, on one thread; ONNX Runtime {onnxruntime.__version__}.",
        "",
        "| form | ms of the processor | what multiplies |",
        "|---|---|---|",
    ]
    rows += [
        f"| {name} | {statistics.median(times[name][1:]):.1f} | {kernel} |" for name, (_, kernel) in sessions.items()
    ]
    return "\n".join(rows)


class Graph:
    """A chain of operators under construction."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._random = np.random.default_rng(0)
        self.last = "x"

    def add(self, kind: str, inputs: list[Any], **attributes: Any) -> str:
        """Add an operator; inputs are names or arrays. Returns the name of its output, which is then the last one."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.last = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [self.last], **attributes))
        return self.last

    def weight(self) -> np.ndarray:
        """Return the codes of a weight."""
        return self._random.integers(-60, 60, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)

    def session(self) -> tuple[Any, str]:
        """Return a session on one thread, and the kind of the operators that multiply."""
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, "h", "w"])]
        outputs = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self._nodes, "convolutions", inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session, _multiplying(model)

    def _constant(self, value: np.ndarray) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _multiplying(model: Any) -> str:
    """Return the kind of the operators that multiply, once the runtime has changed the graph."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    return ", ".join(kind for kind in kinds if "Conv" in kind)


def float_graph() -> Graph:
    """Return convolutions of floating-point numbers."""
    graph = Graph()
    for _ in range(LAYERS):
        graph.add("Conv", [graph.last, graph.weight().astype(np.float32) / 1000, _bias()], **_GEOMETRY)
        graph.add("Relu", [graph.last])
    return graph


def quantized_graph(kind: type) -> Graph:
    """Return convolutions with a pair of QuantizeLinear and DequantizeLinear after each, in codes of a type."""
    graph, grid = Graph(), [np.float32(0.02), kind(0)]
    steps = np.full(CHANNELS, 0.001, np.float32)
    graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [graph.last, *grid]), *grid])
    for _ in range(LAYERS):
        x = graph.last
        weight = graph.add("DequantizeLinear", [graph.weight(), steps], axis=0)
        bias = graph.add("DequantizeLinear", [np.zeros(CHANNELS, np.int32), steps * np.float32(0.02)], axis=0)
        graph.add("Relu", [graph.add("Conv", [x, weight, bias], **_GEOMETRY)])
        graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [graph.last, *grid]), *grid])
    return graph


def integer_graph() -> Graph:
    """Return convolutions of codes whose sums become floating-point numbers by further operators."""
    graph, grid = Graph(), [np.float32(0.02), np.uint8(0)]
    steps = np.full((1, CHANNELS, 1, 1), 2e-5, np.float32)
    for _ in range(LAYERS):
        codes = graph.add("QuantizeLinear", [graph.last, *grid])
        sums = graph.add("ConvInteger", [codes, graph.weight(), np.uint8(0)], **_GEOMETRY)
        scaled = graph.add("Mul", [graph.add("Cast", [sums], to=TensorProto.FLOAT), steps])
        graph.add("Relu", [graph.add("Add", [scaled, _bias().reshape(1, -1, 1, 1)])])
    return graph


def _bias() -> np.ndarray:
    return np.zeros(CHANNELS, np.float32)
