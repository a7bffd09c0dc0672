"""Passes over the pixel shuffles of ONNX graphs leave values as they are, and change what they are meant for only."""

import numpy as np
import pytest
import torch

from basicsr.archs import build_network
from basicsr.deploy import onnx_export
from basicsr.deploy.onnx_export import to_onnx
from basicsr.deploy.shuffle_passes import convolve_before_shuffle, shuffle_whole_pixels
from tests import tiny
from tests.deploy.networks import as_it_is, calibrated

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ir = pytest.importorskip("onnx_ir")
runtime = pytest.importorskip("onnxruntime")

CHANNELS = 4


def node(kind, inputs, output, **attributes):
    return onnx.helper.make_node(kind, inputs, [output], **attributes)


def graph_of(outputs=3, factor=2, side=3, *, codes=False, pads=None, group=1, read_twice=False, ends_there=False):
    """Return a graph of a convolution, a rounding, a shuffle, a convolution, and a number and a number for each channel after it.

    All weights are whole numbers, so that floating-point sums are exact in any order.
    """
    random = np.random.default_rng(3)

    def whole(*shape):
        return random.integers(-3, 4, shape).astype(np.float32)

    before, after = whole(CHANNELS * factor**2, 3, 3, 3), whole(outputs, CHANNELS // group, side, side)
    arrays = {"w1": before, "b1": whole(len(before)), "b2": whole(outputs), "two": np.array(2, np.float32)}
    arrays |= {"mean": whole(1, outputs, 1, 1), "high": np.array(9, np.float32)}
    arrays["w2_codes" if codes else "w2"] = after.astype(np.int8) if codes else after
    nodes = [node("DequantizeLinear", ["w2_codes", "steps"], "w2", axis=0)] if codes else []
    arrays |= {"steps": 2.0 ** random.integers(-2, 3, outputs).astype(np.float32)} if codes else {}
    ones, pads = [1, 1], [side // 2] * 4 if pads is None else pads
    nodes += [
        node("Conv", ["x", "w1", "b1"], "c1", pads=[1] * 4, strides=ones, dilations=ones, group=1, auto_pad="NOTSET", kernel_shape=[3, 3]),
        node("Clip", ["c1", "", "high"], "clipped"),
        node("DepthToSpace", ["clipped"], "shuffled", blocksize=factor, mode="CRD"),
        node("Conv", ["shuffled", "w2", "b2"], "c2", pads=pads, strides=ones, dilations=ones, group=group, auto_pad="NOTSET", kernel_shape=[side, side]),
        node("Mul", ["c2", "two"], "doubled"),
        node("Add", ["doubled", "mean"], "y"),
    ]  # fmt: skip
    if ends_there:
        nodes = nodes[:-2]
        nodes[-1].output[0] = "y"
    ends = {
        "x": ["n", 3, "h", "w"],
        "y": ["n", outputs, "H", "W"],
        **({"shuffled": ["n", CHANNELS, "a", "b"]} if read_twice else {}),
    }
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends.items()]
    graph = onnx.helper.make_graph(
        nodes,
        "shuffles",
        values[:1],
        values[1:],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def passed(model, *changes):
    graph = ir.from_proto(model)
    for change in changes:
        change(graph)
    model = ir.to_proto(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def outputs_of(model):
    x = np.random.default_rng(1).integers(0, 8, (2, 3, 5, 7)).astype(np.float32)
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[
        0
    ]


def kinds(model):
    return [node.op_type for node in model.graph.node if node.op_type != "DequantizeLinear"]


FOLDED = ["Conv", "Clip", "Conv", "Mul", "Add", "DepthToSpace"]


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize(("outputs", "factor", "side"), [(3, 2, 3), (1, 2, 5), (1, 3, 3), (1, 4, 3), (4, 2, 3)])
def test_a_convolution_of_few_channels_works_before_the_shuffle(outputs, factor, side, codes):
    model = graph_of(outputs, factor, side, codes=codes)
    changed = passed(model, convolve_before_shuffle)
    assert kinds(changed) == FOLDED
    np.testing.assert_array_equal(outputs_of(changed), outputs_of(model))
    both = passed(model, convolve_before_shuffle, shuffle_whole_pixels)
    assert [node.attribute for node in both.graph.node if node.op_type == "DepthToSpace"][0]
    np.testing.assert_array_equal(outputs_of(both), outputs_of(model))


def test_a_convolution_at_the_end_of_a_graph():
    model = graph_of(ends_there=True)
    changed = passed(model, convolve_before_shuffle)
    assert kinds(changed) == ["Conv", "Clip", "Conv", "DepthToSpace"]
    np.testing.assert_array_equal(outputs_of(changed), outputs_of(model))


@pytest.mark.parametrize(
    "other",
    [{"outputs": 5}, {"outputs": 3, "factor": 3}, {"pads": [0] * 4}, {"outputs": 4, "group": 2}, {"read_twice": True}],
    ids=["channels of two vectors", "factor 3", "no padding", "groups", "the shuffled values are an output"],
)
def test_other_convolutions_stay(other):
    model = graph_of(**other)
    changed = passed(model, convolve_before_shuffle)
    assert kinds(changed) == kinds(model)
    np.testing.assert_array_equal(outputs_of(changed), outputs_of(model))


@pytest.mark.parametrize("factor", [2, 3])
def test_channels_are_ordered_so_that_whole_pixels_are_shuffled(factor):
    model = graph_of(factor=factor)
    changed = passed(model, shuffle_whole_pixels)
    (shuffle,) = [node for node in changed.graph.node if node.op_type == "DepthToSpace"]
    assert {a.name: onnx.helper.get_attribute_value(a) for a in shuffle.attribute} == {
        "blocksize": factor,
        "mode": b"DCR",
    }
    np.testing.assert_array_equal(outputs_of(changed), outputs_of(model))


def test_an_exported_network_shuffles_its_output_alone_and_whole_pixels(monkeypatch):
    """Of EDSR x4 the second shuffle is that of three channels; what runtimes give is what they give without the passes."""
    options = {"type": "EDSR", "upscale": 4, **tiny.NETWORKS["EDSR"]}
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    for network in (build_network(options).eval(), calibrated("full", 4, options=options)[0]):
        model = to_onnx(network)
        shuffles = [node for node in model.graph.node if node.op_type == "DepthToSpace"]
        assert len(shuffles) == 2 and shuffles[1].output[0] == "sr"
        assert [a.s for a in shuffles[0].attribute if a.name == "mode"] == [b"DCR"]
        with monkeypatch.context() as patch:
            for change in ("convolve_before_shuffle", "shuffle_whole_pixels"):
                patch.setattr(onnx_export, change, lambda _: None)
            plain = to_onnx(network)
        outputs = [as_it_is(one, image) for one in (plain, model)]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
