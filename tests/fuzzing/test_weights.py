"""Files of weights, calibration sets and packed networks made at random: used, or refused in a sentence."""

import contextlib
import json

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from basicsr.archs import build_network
from basicsr.data.calibration_tensor import load_calibration_tensor
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.packed_format import Description, parse_description, read_packed, write_packed
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.deploy.upscaling import load_model
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import CheckpointError, DataError
from tests import tiny
from tests.fuzzing.schema_strategies import JUNK, places, with_value

pytestmark = pytest.mark.slow
OPTIONS = {"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]}
LONGEST = 4000
FORMS = {
    "half": lambda t: t.half(),
    "double": lambda t: t.double(),
    "whole": lambda t: t.to(torch.int8),
    "boolean": lambda t: t > 0,
    "complex": lambda t: t.to(torch.complex64),
    "not a number": lambda t: torch.full_like(t, torch.nan),
    "infinite": lambda t: t / 0,
    "huge": lambda t: torch.full_like(t, 3e38),
    "sparse": lambda t: t.to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t.contiguous(), 0.1, 0, torch.qint8),
    "without values": lambda t: t.to("meta"),
    "expanded": lambda t: torch.zeros(()).expand(t.shape),
    "scalar": lambda t: t.sum(),
    "empty": lambda t: t[:0],
    "flat": lambda t: t.flatten(),
    "one more axis": lambda t: t[None],
    "other length": lambda t: torch.cat([t, t]),
    "a parameter": lambda t: torch.nn.Parameter(t),
    "text": lambda t: "weights",
    "a list": lambda t: t.flatten()[:3].tolist(),
    "a numpy number": lambda t: np.float32(1),
    "nested": lambda t: {"weight": t},
    "itself": lambda t: t,
}


@pytest.fixture(scope="module")
def state_dict():
    torch.manual_seed(0)
    return build_network(OPTIONS).state_dict()


def changes(names):
    one = st.tuples(st.sampled_from(sorted(names)), st.sampled_from([*FORMS, "missing", "renamed"]))
    return st.tuples(
        st.lists(one, min_size=1, max_size=3, unique_by=lambda step: step[0]),
        st.sampled_from(["params", "params_ema", None, "optimizer", 7]),
    )


def changed(state_dict, change):
    steps, entry = change
    content = dict(state_dict)
    for name, what in steps:
        value = content.pop(name, None)
        if isinstance(value, torch.Tensor) and what == "renamed":
            content[f"module.{name}"] = value
        elif isinstance(value, torch.Tensor) and what != "missing":
            content[name] = FORMS[what](value)
    return content if entry is None else {entry: content}


def assert_told(call, *kinds):
    """Return what a call returns; None where it refuses with an error of these kinds, whose sentence is looked at."""
    try:
        return call()
    except kinds as error:
        assert str(error)[-1] in ".?!'\"" and 10 < len(str(error)) < LONGEST, str(error)
    return None


def test_state_dicts(fuzz, state_dict, tmp_path):
    used = []

    def check(change):
        torch.save(changed(state_dict, change), tmp_path / "a.pth")
        network = assert_told(lambda: load_model(tmp_path / "a.pth"), CheckpointError)
        used.append(network is not None)
        if network is not None:
            assert all(bool(value.isfinite().all()) for value in network.state_dict().values())

    fuzz(changes(state_dict), check)
    assert any(used) and not all(used)


def test_calibration_tensors(fuzz, tmp_path):
    forms = st.sampled_from(sorted(FORMS))
    content = st.one_of(JUNK, st.tuples(forms, st.sampled_from(["lq", None, "list", "gt"])))
    crops = torch.rand(2, 3, 8, 8)

    def check(value):
        if isinstance(value, tuple):
            form, place = FORMS[value[0]](crops), value[1]
            value = [form, crops[0]] if place == "list" else form if place is None else {"lq": crops, place: form}
        torch.save(value, tmp_path / "a.pth")
        lq = assert_told(lambda: load_calibration_tensor(tmp_path / "a.pth", 2), DataError)
        if lq is not None:
            assert lq.ndim == 4 and lq.dtype == torch.float32 and bool(lq.isfinite().all())

    fuzz(content, check)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    torch.manual_seed(0)
    network = build_network(OPTIONS).eval()
    quantization_map = insert_quantizers(network, "body", 4, 4)
    for _, quantizer in named_quantizers(network):
        quantizer.mark_calibrated()
    file = tmp_path_factory.mktemp("packed") / "a.safetensors"
    save_packed(network, OPTIONS, quantization_map, file, method="random")
    return file


def test_packed_files_whose_bytes_were_changed(fuzz, packed, tmp_path):
    whole = packed.read_bytes()

    def check(change):
        start, length, content = change
        data = whole[:start] + content + whole[start + length :]
        (tmp_path / "a.safetensors").write_bytes(data)
        network = assert_told(lambda: load_model(tmp_path / "a.safetensors"), CheckpointError)
        assert (
            network is None or data == whole or start < 600
        )  # text for readers in the header, such as the name of the network

    at = st.integers(0, 700) | st.integers(0, len(whole))
    fuzz(st.tuples(at, st.integers(0, 40), st.binary(max_size=8)), check)


def test_packed_files_that_lie(fuzz, packed, tmp_path):
    """What they describe was changed before they were packed, so that their checksum is right."""
    tensors = read_packed(packed)
    description = parse_description(tensors.pop("description")).model_dump()
    description["codes"], description["state"] = (list(map(list, description[key])) for key in ("codes", "state"))
    paths = places(description)

    def check(change):
        index, value, name = change
        lie = with_value(description, paths[index], value)
        stored = {key: tensor[: len(tensor) // 2] if key == name else tensor for key, tensor in tensors.items()}
        try:
            said = Description.model_validate_json(json.dumps(lie))
            said.map()
        except (
            ValueError,
            QuantizationError,
        ):  # such a file cannot be written by this package; the reader refuses it as well
            return
        write_packed(tmp_path / "a.safetensors", said, stored)
        assert_told(lambda: load_packed(tmp_path / "a.safetensors"), CheckpointError)

    fuzz(st.tuples(st.integers(0, len(paths) - 1), JUNK, st.sampled_from(["codes", "float32", ""])), check)


def graph_of(nodes, inputs):
    """Return a graph that says of itself what those of this package say."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    from basicsr.deploy.graph_metadata import GraphMetadata, add_metadata

    shape = ["n", 3, "h", "w"]
    lr, sr = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("lr", "sr"))
    graph = helper.make_graph(nodes, "g", [lr], [sr], initializer=inputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    add_metadata(model, GraphMetadata(scale=2, size_multiple=1))
    onnx.checker.check_model(model)
    return model


def test_graphs_whose_bytes_were_changed(fuzz, tmp_path):
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    whole = graph_of([helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")], [scales])
    content = whole.SerializeToString()
    picture = torch.rand(1, 3, 6, 6)
    assert RuntimeNetwork(whole, "onnxruntime", threads=1)(picture).shape == (1, 3, 12, 12)

    def check(change):
        start, length, put = change
        (tmp_path / "a.onnx").write_bytes(content[:start] + put + content[start + length :])

        def run():
            return RuntimeNetwork(tmp_path / "a.onnx", "onnxruntime", threads=1)(picture)

        with contextlib.suppress(MemoryError):  # a size that no memory holds; the commands tell it in their words
            result = assert_told(run, CheckpointError)
            assert result is None or result.shape == (1, 3, 12, 12)

    fuzz(st.tuples(st.integers(0, len(content)), st.integers(0, 6), st.binary(max_size=4)), check)
