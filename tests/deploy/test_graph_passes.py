"""Passes over ONNX graphs leave values as they are."""

import numpy as np
import pytest
import torch
from torch import nn

from basicsr.deploy import onnx_export
from basicsr.deploy.graph_passes import round_before_shuffle, share_equal_constants
from basicsr.deploy.onnx_export import to_onnx
from basicsr.deploy.runtimes import RuntimeNetwork
from tests import tiny
from tests.deploy.networks import as_it_is, calibrated

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ir = pytest.importorskip("onnx_ir")
runtime = pytest.importorskip("onnxruntime")

EDSR = {"type": "EDSR", "upscale": 4, **tiny.NETWORKS["EDSR"]}


def passed(model, change):
    """Return what a pass makes of an `onnx.ModelProto`."""
    graph = ir.from_proto(model)
    change(graph)
    return ir.to_proto(graph)


def edsr_graphs(monkeypatch):
    """Return the graph of an EDSR x4 with all layers quantized, without and with the pass, and without those that come after it."""
    network = calibrated("full", 4, options=EDSR)[0]
    for later in ("convolve_before_shuffle", "shuffle_whole_pixels"):
        monkeypatch.setattr(onnx_export, later, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "round_before_shuffle", lambda _: None)
        plain = to_onnx(network)
    return plain, to_onnx(network)


def before_shuffles(model):
    """Return the kind of the operator whose output each shuffle moves."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    return [makers[node.input[0]] for node in model.graph.node if node.op_type == "DepthToSpace"]


def test_codes_are_shuffled_in_place_of_floats(monkeypatch):
    plain, rounded = edsr_graphs(monkeypatch)
    assert before_shuffles(plain) == ["Conv", "Conv"]
    assert before_shuffles(rounded) == ["DequantizeLinear", "DequantizeLinear"]
    assert sorted(n.op_type for n in plain.graph.node) == sorted(n.op_type for n in rounded.graph.node)
    onnx.checker.check_model(rounded, full_check=True)
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(3))
    outputs = [as_it_is(model, image) for model in (plain, rounded)]
    assert torch.equal(*outputs) and outputs[0].std() > 0.01


def test_openvino_shuffles_codes(monkeypatch):
    pytest.importorskip("openvino")
    kinds = []
    for model in edsr_graphs(monkeypatch):
        kernels = RuntimeNetwork(model, "openvino", threads=1).profile(torch.rand(1, 3, 16, 16))
        kinds.append({kernel.name.lower().endswith("i8") for kernel in kernels if "DepthToSpace" in kernel.name})
    assert kinds == [{False}, {True}]


def chain_graph(bounds, *, read_twice=False):
    """Return a graph that shuffles (1, 8, 2, 3) to (1, 2, 4, 6) and rounds it, with clipping bounds of the given shape."""
    constants = {
        "low": np.full(bounds, -0.5, np.float32),
        "high": np.full(bounds, 0.5, np.float32),
        "step": np.array(0.125, np.float32),
        "zero": np.array(128, np.uint8),
    }
    lines = [
        onnx.helper.make_node("DepthToSpace", ["x"], ["shuffled"], blocksize=2, mode="CRD"),
        onnx.helper.make_node("Add", ["shuffled", "low"], ["lowered"]),
        onnx.helper.make_node("QuantizeLinear", ["lowered", "step", "zero"], ["codes"]),
        onnx.helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["rounded"]),
        onnx.helper.make_node("Add", ["rounded", "shuffled" if read_twice else "high"], ["y"]),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 8, 2, 3)), ("y", (1, 2, 4, 6)))
    ]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(lines, "chain", values[:1], values[1:], initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("bounds", "read_twice", "moves"), [((), False, True), ((2, 1, 1), False, False), ((), True, False)]
)
def test_only_what_is_alike_for_all_channels_and_read_once_is_moved(bounds, read_twice, moves):
    model = chain_graph(bounds, read_twice=read_twice)
    x = np.random.default_rng(0).standard_normal((1, 8, 2, 3)).astype(np.float32)

    def outputs():
        onnx.checker.check_model(model, full_check=True)
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    before = outputs()
    model = passed(model, round_before_shuffle)
    assert before_shuffles_codes(model) is moves
    np.testing.assert_array_equal(outputs(), before)


def before_shuffles_codes(model):
    """Whether the shuffle has been moved behind the rounding."""
    return [node.op_type for node in model.graph.node].index("DepthToSpace") > 0


def test_equal_constants_are_stored_once():
    class Twice(nn.Module):
        scale, size_multiple = 1, 1

        def __init__(self):
            super().__init__()
            self.register_buffer("first", torch.linspace(0, 1, 3000).view(3, -1, 1))
            self.register_buffer("second", self.first.clone())

        def forward(self, x):
            return (x.mean() + self.first) * self.second

    model = to_onnx(Twice())
    assert sum(tensor.name in ("first", "second") for tensor in model.graph.initializer) == 1
    again = passed(model, share_equal_constants)
    assert [tensor.name for tensor in again.graph.initializer] == [tensor.name for tensor in model.graph.initializer]
