"""Files of weights, calibration sets and packed networks made at random: used, or refused in a sentence."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from basicsr.archs import build_network
from basicsr.data.calibration_tensor import load_calibration_tensor
from basicsr.deploy.packed_file import load_packed
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.deploy.upscaling import load_model
from basicsr.utils.errors import CheckpointError, DataError
from tests.fuzzing.broken_networks import OPTIONS, graph_of, lies_of, packed_network
from tests.fuzzing.schema_strategies import JUNK

pytestmark = pytest.mark.slow
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
    return packed_network(tmp_path_factory.mktemp("packed") / "a.safetensors")


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
    lies, pack = lies_of(packed, tmp_path / "a.safetensors")

    def check(lie):
        if pack(lie):
            assert_told(lambda: load_packed(tmp_path / "a.safetensors"), CheckpointError)

    fuzz(lies, check)


def test_graphs_that_lie(fuzz):
    """Files are refused by their checksum. What ONNX Runtime says of a wrong graph in spite of that is told in a sentence.

    OpenVINO is not asked: it breaks at some such graphs, and the process with it.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    whole = graph_of([helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")], [scales])
    content = whole.SerializeToString()
    picture = torch.rand(1, 3, 6, 6)
    assert RuntimeNetwork(whole, "onnxruntime", threads=1)(picture).shape == (1, 3, 12, 12)

    def check(change):
        start, length, put = change
        try:
            graph = onnx.load_model_from_string(content[:start] + put + content[start + length :])
        except Exception:  # it is no graph, which the reader of files tells
            return
        with contextlib.suppress(MemoryError):  # a size that no memory holds; the commands tell it in their words
            result = assert_told(lambda: RuntimeNetwork(graph, "onnxruntime", threads=1)(picture), CheckpointError)
            assert result is None or result.shape == (1, 3, 12, 12)

    fuzz(st.tuples(st.integers(0, len(content)), st.integers(0, 6), st.binary(max_size=4)), check)
