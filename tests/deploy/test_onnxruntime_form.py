"""The form for ONNX Runtime: right values for all architectures and sizes, and integers multiplied where it says so."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.deploy.graph_metadata import is_quantized, read_metadata
from basicsr.deploy.onnx_export import save_onnx, to_onnx
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import ARCH_REGISTRY
from tests import tiny
from tests.deploy.networks import calibrated

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from basicsr.deploy.onnxruntime_form import onnxruntime_form  # noqa: E402 -- after the packages that it needs

SIZES = {"SwinIR": [(8, 8), (16, 40)]}
ODD_SIZES = [(1, 1), (5, 7), (20, 11)]
CASES = [
    (architecture, *("2dquant", 4)) if architecture == "SwinIR" else (architecture, coverage, bits)
    for architecture in ARCH_REGISTRY.names()
    for coverage, bits in (("body", 4), ("full", 8))
    if architecture in tiny.NETWORKS and (architecture != "SwinIR" or coverage == "body")
]
# a code that falls to the other side of a threshold moves what is around it, by the noise of quantization
NOISE = {8: 0.004, 4: 0.012}
WIDE = {"num_feat": 16, "num_block": 2}
LEVEL = 1 / 255


def options_of(architecture, **more):
    return {"type": architecture, "upscale": 2, **tiny.NETWORKS[architecture], **more}


def kinds_of(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(("architecture", "coverage", "bits"), CASES)
def test_every_architecture_computes_what_pytorch_does(architecture, coverage, bits):
    more = WIDE if architecture == "EDSR" else {}
    network = calibrated(coverage, bits, options=options_of(architecture, **more))[0]
    expected, runtime = eight_bit_network(network), RuntimeNetwork(to_onnx(network), "onnxruntime", threads=1)
    for height, width in SIZES.get(architecture, ODD_SIZES):
        x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            wanted, found = expected(x), runtime(x)
        error = (found - wanted) / max(1, float(wanted.abs().max()))
        assert float(error.square().mean().sqrt()) < NOISE[bits]


def test_integers_are_multiplied(tmp_path):
    pytest.importorskip("onnxruntime")
    x = torch.rand(1, 3, 16, 16)
    full = RuntimeNetwork(
        to_onnx(calibrated("full", 8, options=options_of("EDSR", **WIDE))[0]), "onnxruntime", threads=1
    )
    kernels = {kernel.name: kernel for kernel in full.profile(x)}
    # the first convolution, of 3 channels, stays; codes are written in two blocks and before the shuffle, sums are what two blocks, the
    # convolution after them and the last one give
    assert kernels["Conv"].count == 1 and not kernels["Conv"].integer
    assert kernels["QLinearConv"].count == 2 + 1 and kernels["QLinearConv"].integer
    assert kernels["MatMulIntegerToFloat"].count == 2 + 1 + 1 and kernels["MatMulIntegerToFloat"].integer


def test_a_picture_is_transposed_at_the_ends_only():
    model = onnxruntime_form(to_onnx(calibrated("body", 4, options=options_of("EDSR", num_feat=16, num_block=4))[0]))
    assert kinds_of(model)["Transpose"] <= 3
    # places of taps are computed once, and all blocks read them
    assert kinds_of(model)["Range"] == 2


def test_roundings_are_made_of_codes():
    model = to_onnx(calibrated("2dquant", 4, options=options_of("SwinIR"))[0])
    assert kinds_of(model)["Round"] > 0
    changed = onnxruntime_form(model)
    onnx.checker.check_model(changed)
    assert kinds_of(changed)["Round"] == 0 and is_quantized(changed)
    assert kinds_of(model)["Round"] > 0, "the graph that is given stays"


def test_tables_of_points_hold_codes():
    network = calibrated("body", 4, options=options_of("EDSR", **WIDE), activation_quantizer={"type": "LearnedPoints"})[
        0
    ]
    model = to_onnx(network)
    before, after = kinds_of(model), kinds_of(form := onnxruntime_form(model))
    assert before["Gather"] == before["QuantizeLinear"] > 0 == after["QuantizeLinear"]
    tables = {t.name: t.data_type for t in form.graph.initializer}
    looked_up = [tables.get(node.input[0]) for node in form.graph.node if node.op_type == "Gather"]
    assert looked_up.count(onnx.TensorProto.UINT8) == before["Gather"]
    x = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = eight_bit_network(network)(x), RuntimeNetwork(form, "onnxruntime", threads=1)(x)
    assert float((found - expected).square().mean().sqrt()) < NOISE[4]


def test_a_graph_says_which_runtime_it_is_for(tmp_path):
    pytest.importorskip("openvino")
    network = calibrated("body", 4, options=options_of("EDSR", **WIDE))[0]
    plain, own = tmp_path / "net.onnx", tmp_path / "net_onnxruntime.onnx"
    assert save_onnx(network, plain, for_onnxruntime=own) == plain.stat().st_size
    assert [read_metadata(onnx.load(file)).runtime for file in (plain, own)] == [None, "onnxruntime"]
    x = torch.rand(1, 3, 9, 6)
    from_plain, from_own = (RuntimeNetwork(file, "onnxruntime", threads=1)(x) for file in (plain, own))
    assert torch.equal(from_plain, from_own)
    RuntimeNetwork(plain, "openvino", threads=1)
    with pytest.raises(
        CheckpointError, match=r"in the form for onnxruntime, which openvino does not know.*without '_onnxruntime'"
    ):
        RuntimeNetwork(own, "openvino", threads=1)
    content = bytearray(own.read_bytes())
    content[len(content) // 2] ^= 1
    own.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read|was changed after it was written"):
        RuntimeNetwork(own, "onnxruntime", threads=1)


def one_convolution(codes, bias, steps, after, zero=3, step=0.01, pad=1):
    """A graph of one convolution of codes, which ends as `after` has it: nodes from `y` to `sr`, and their constants."""
    nodes, constants = after
    arrays = {
        "step": np.float32(step), "zero": np.uint8(zero), "codes": codes, "steps": steps.astype(np.float32), "bias": bias.astype(np.float32), **constants,
    }  # fmt: skip
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["lr", "step", "zero"], ["x"]),
        make("DequantizeLinear", ["x", "step", "zero"], ["values"]),
        make("DequantizeLinear", ["codes", "steps"], ["weight"], axis=0),
        make("Conv", ["values", "weight", "bias"], ["y"], pads=[pad] * 4, kernel_shape=codes.shape[2:]),
        *(make(kind, inputs, outputs) for kind, inputs, outputs in nodes),
    ]
    sides = [[1, codes.shape[1], "h", "w"], [1, codes.shape[0], "h2", "w2"]]
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name, shape in zip(("lr", "sr"), sides, strict=True)
    )
    initializers = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "one", inputs, outputs, initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def outputs_of(model, x):
    """What ONNX Runtime computes with a graph as it stands, in the order of its operators."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": x})[0]


FLOATS = ([("LeakyRelu", ["y"], ["sr"])], {})
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**16)


def random_convolution(seed, side, channels=16, rows=16):
    random = np.random.default_rng(seed)
    codes = random.integers(-64, 65, (rows, channels, side, side)).astype(np.int8)
    return random, codes, random.normal(0, 1, rows), random.uniform(1e-4, 1e-3, rows)


@settings(max_examples=20, deadline=None)
@given(sizes, seeds, st.sampled_from([1, 3, 5]), st.integers(0, 255), st.booleans())
def test_sums_in_floating_point_are_those_of_the_convolution(size, seed, side, zero, padded):
    random, codes, bias, steps = random_convolution(seed, side)
    size = size if padded else tuple(number + side for number in size)
    x = random.normal(0, 0.5, (1, 16, *size)).astype(np.float32)
    model = one_convolution(codes, bias, steps, FLOATS, zero, pad=side // 2 if padded else 0)
    changed = onnxruntime_form(model)
    assert kinds_of(changed)["MatMulIntegerToFloat"] == 1 and kinds_of(changed)["Conv"] == 0
    np.testing.assert_allclose(outputs_of(changed, x), outputs_of(model, x), rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(sizes, seeds, st.integers(0, 255), st.sampled_from([4, 15, 255]), st.booleans())
def test_codes_are_those_nearest_to_the_sums(size, seed, out_zero, high, relu):
    random, codes, bias, steps = random_convolution(seed, 3)
    out_step, shift = 0.05, 0.013
    x = random.normal(0, 0.5, (1, 16, *size)).astype(np.float32)
    lower, upper = -out_zero * out_step - shift, (high - out_zero) * out_step - shift
    source = "positive" if relu else "y"
    nodes = [
        *([("Relu", ["y"], ["positive"])] if relu else []),
        ("Clip", [source, "lower", "upper"], ["limited"]),
        ("Add", ["limited", "shift"], ["moved"]),
        ("QuantizeLinear", ["moved", "out_step", "out_zero"], ["out"]),
        ("DequantizeLinear", ["out", "out_step", "out_zero"], ["sr"]),
    ]
    numbers = {"lower": lower, "upper": upper, "shift": shift, "out_step": out_step}
    constants = {name: np.float32(number) for name, number in numbers.items()} | {"out_zero": np.uint8(out_zero)}
    model = one_convolution(codes, bias, steps, (nodes, constants))
    changed = onnxruntime_form(model)
    assert kinds_of(changed)["QLinearConv"] == 1
    found = outputs_of(changed, x)
    sums = outputs_of(one_convolution(codes, bias, steps, ([("Identity", ["y"], ["sr"])], {})), x)
    sums = np.clip(np.maximum(sums, 0) if relu else sums, lower, upper) + shift
    # half a step of the output, and half a product of two steps, of which the bias is a whole number
    assert np.abs(found - sums).max() <= out_step / 2 + 0.01 * steps.max() / 2 + 1e-5


@settings(max_examples=20, deadline=None)
@given(sizes, seeds, st.sampled_from([1, 3, 12, 16]))
def test_a_picture_is_rounded_to_a_fraction_of_a_level(size, seed, rows):
    random, codes, bias, steps = random_convolution(seed, 5, channels=64, rows=rows)
    x = random.normal(0, 0.5, (1, 64, *size)).astype(np.float32)
    nodes = [("Div", ["y", "range"], ["scaled"]), ("Add", ["scaled", "mean"], ["sr"])]
    constants = {"range": np.float32(3), "mean": np.full((1, rows, 1, 1), 0.45, np.float32)}
    model = one_convolution(codes, bias, steps, (nodes, constants), pad=2)
    changed = onnxruntime_form(model)
    assert kinds_of(changed)["QLinearConv"] == 1 and kinds_of(changed)["Div"] == 0
    copies = {1: 47, 3: 15, 12: 3, 16: 3}[rows]
    wanted, found = np.clip(outputs_of(model, x), 0, 1), outputs_of(changed, x)
    of_bias = 0.01 * steps.max() / 3
    assert np.abs(found - wanted).max() <= LEVEL / copies / 2 + of_bias + 1e-6
    far = np.abs(np.mod(wanted / LEVEL, 1) - 0.5) * LEVEL > of_bias + 1e-6
    assert np.array_equal(np.round(found * 255)[far], np.round(wanted * 255)[far]), "the same picture of 8 bits"


def test_a_bias_that_no_whole_number_holds_stays_a_float():
    _, codes, bias, steps = random_convolution(0, 3)
    codes[0], steps[0] = 0, 1e-30
    nodes = [
        ("QuantizeLinear", ["y", "out_step", "out_zero"], ["out"]),
        ("DequantizeLinear", ["out", "out_step", "out_zero"], ["sr"]),
    ]
    model = one_convolution(codes, bias, steps, (nodes, {"out_step": np.float32(0.05), "out_zero": np.uint8(100)}))
    changed = onnxruntime_form(model)
    assert kinds_of(changed)["QLinearConv"] == 0 and kinds_of(changed)["MatMulIntegerToFloat"] == 1
    x = np.random.default_rng(1).normal(0, 0.5, (1, 16, 6, 5)).astype(np.float32)
    assert np.mean(outputs_of(changed, x) != outputs_of(model, x)) < 0.01


def test_weights_stay_so_small_that_two_products_fit_into_16_bits():
    """Processors without VNNI add two products in 16 bits, and would saturate."""
    network = calibrated("full", 8, options=options_of("EDSR", **WIDE))[0]
    model = onnxruntime_form(to_onnx(network))
    weights = {
        node.input[3] for node in model.graph.node if node.op_type == "QLinearConv"
    } | {node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"}  # fmt: skip
    arrays = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in weights]
    assert len(arrays) == 3 + 4
    assert all(2 * 255 * np.abs(array.astype(int)).max() < 2**15 for array in arrays)
