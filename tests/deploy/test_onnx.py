"""ONNX graphs, and the runtimes that run them, compute what PyTorch does, at any size."""

import importlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basicsr.archs import build_network
from basicsr.deploy import runtimes
from basicsr.deploy.onnx_export import save_onnx, to_onnx
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.evaluation.inference import upscale
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.extras import require
from tests import tiny
from tests.deploy.networks import calibrated

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

NETWORKS = {name: {"type": name, "upscale": 2, **options} for name, options in tiny.NETWORKS.items()}
EDSR, SWINIR = NETWORKS["EDSR"], NETWORKS["SwinIR"]
SIZES = {"EDSR": [(5, 7), (20, 11)], "RDN": [(5, 7), (20, 11)], "SwinIR": [(8, 8), (16, 40)]}
CASES = (
    "EDSR FP", "EDSR body", "EDSR full", "EDSR body_and_skips", "EDSR all_and_skips", "EDSR body LearnedPoints", "RDN body",
    "SwinIR 2dquant",
)  # fmt: skip
RUNTIMES = ("openvino", "onnxruntime")


def network_of(case):
    architecture, coverage, *quantizer = case.split()
    options = NETWORKS[architecture]
    if coverage == "FP":
        torch.manual_seed(1)
        return build_network(options).eval()
    insertion = {"activation_quantizer": {"type": quantizer[0]}} if quantizer else {}
    return calibrated(coverage, 4, options=options, **insertion)[0]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The file of each case, traced when first asked for."""
    folder, files = tmp_path_factory.mktemp("graphs"), {}

    def graph(case):
        if case not in files:
            files[case] = folder / f"{case}.onnx"
            size = save_onnx(network_of(case), files[case])
            assert size == files[case].stat().st_size
        return files[case]

    return graph


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_a_runtime_computes_what_pytorch_does(case, runtime, graphs):
    pytest.importorskip(runtime)
    expected, network = eight_bit_network(network_of(case)), RuntimeNetwork(graphs(case), runtime, threads=1)
    for height, width in SIZES[case.split()[0]]:
        x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            difference = (network(x) - expected(x)).abs() / expected(x).abs().max()
        # where sums differ by rounding a code may flip, and others with it: seldom in networks of so few layers
        assert float(difference.median()) < 1e-5
        assert float((difference < 1e-4).float().mean()) > (0.9 if runtime == "openvino" else 0.5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_takes_the_place_of_a_network(runtime, graphs):
    pytest.importorskip(runtime)
    network, expected = RuntimeNetwork(graphs("EDSR FP"), runtime), network_of("EDSR FP")
    images = torch.rand(2, 3, 10, 9)
    torch.testing.assert_close(upscale(network, images), upscale(expected, images), rtol=1e-4, atol=1e-5)
    assert (network.scale, network.size_multiple) == (2, 1)


def test_openvino_multiplies_integers(graphs):
    pytest.importorskip("openvino")
    x = torch.rand(1, 3, 16, 16)
    blocks = EDSR["num_block"]
    bodies = [
        RuntimeNetwork(graphs(case), "openvino", threads=1).profile(x)
        for case in ("EDSR body", "EDSR body LearnedPoints")
    ]
    for body in bodies:
        assert sum(kernel.count for kernel in body if kernel.integer) == 2 * blocks
    full = RuntimeNetwork(graphs("EDSR full"), "openvino", threads=1).profile(x)
    assert sum(kernel.count for kernel in full if kernel.integer) > 2 * blocks
    plain = RuntimeNetwork(graphs("EDSR FP"), "openvino", threads=1).profile(x)
    assert not any(kernel.integer for kernel in plain)
    assert all(
        kernel.count > 0 and kernel.milliseconds >= 0 for kernels in (*bodies, full, plain) for kernel in kernels
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_linear_layers_multiply_integers(runtime, graphs):
    pytest.importorskip(runtime)
    kernels = RuntimeNetwork(graphs("SwinIR 2dquant"), runtime, threads=1).profile(torch.rand(1, 3, 16, 16))
    layers = sum(SWINIR["depths"])
    assert sum(kernel.count for kernel in kernels if kernel.integer) >= 4 * layers


def test_a_graph_says_what_it_is_and_nothing_else(graphs):
    model = onnx.load(graphs("SwinIR 2dquant"))
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert len(said.pop("sha256")) == 64
    assert said == {
        "format": "basicsr-quant",
        "layout": "NCHW",
        "channels": "RGB",
        "range": "0..1",
        "scale": "2",
        "size_multiple": "8",
    }
    assert b".py" not in graphs("SwinIR 2dquant").read_bytes()  # no stack traces of the exporter
    contents = [(t.data_type, tuple(t.dims), t.raw_data) for t in model.graph.initializer if t.raw_data]
    assert len(contents) == len(set(contents))
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    assert len(weights) >= 6 * sum(SWINIR["depths"])  # q, k, v, proj, fc1, fc2


def test_linear_layers_may_stay_in_floating_point():
    network = calibrated("2dquant", 4, options={**SWINIR, "depths": (1,), "num_heads": (2,)})[0]
    operators = [node.op_type for node in to_onnx(network, integer_linear=False).graph.node]
    assert "QuantizeLinear" not in operators
    assert operators.count("Round") >= 5


def test_foreign_and_broken_graphs_are_refused(tmp_path, graphs):
    pytest.importorskip("onnxruntime")
    model = onnx.load(graphs("EDSR FP"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="not written by this package"):
        RuntimeNetwork(tmp_path / "foreign.onnx", "onnxruntime")
    (tmp_path / "cut.onnx").write_bytes(graphs("EDSR FP").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.onnx' cannot be read"):
        RuntimeNetwork(tmp_path / "cut.onnx", "onnxruntime")
    with pytest.raises(CheckpointError, match=r"absent\.onnx' does not exist"):
        RuntimeNetwork(tmp_path / "absent.onnx", "onnxruntime")


def test_a_graph_that_was_changed_never_reaches_a_runtime(tmp_path, graphs, monkeypatch):
    """Runtimes compute with damaged weights, and OpenVINO ends the process at some damaged graphs."""
    file = tmp_path / "a.onnx"
    monkeypatch.setattr(runtimes, "_opened", lambda *_: "opened")
    whole = graphs("EDSR FP").read_bytes()
    file.write_bytes(whole)
    assert RuntimeNetwork(file, "onnxruntime")._infer == "opened"
    weights = onnx.load(graphs("EDSR FP")).graph.initializer[0].raw_data[:16]
    place = whole.index(weights)
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(CheckpointError, match=r"a\.onnx' was changed after it was written: its checksum differs"):
        RuntimeNetwork(file, "onnxruntime")
    model = onnx.load(graphs("EDSR FP"))
    (entry,) = [entry for entry in model.metadata_props if entry.key == "sha256"]
    for text in ("", "0", entry.value.upper(), "é" * 64):
        entry.value = text
        onnx.save(model, file)
        with pytest.raises(CheckpointError, match="its checksum differs"):
            RuntimeNetwork(file, "onnxruntime")
    model.metadata_props.remove(entry)
    onnx.save(model, file)
    with pytest.raises(CheckpointError, match=r"has no checksum: an older version .*basicsr/export.py --onnx"):
        RuntimeNetwork(file, "onnxruntime")


def test_runtimes_and_precisions_that_do_not_exist_are_refused(graphs):
    pytest.importorskip("onnxruntime")
    with pytest.raises(OptionsError, match="'tensorrt' is not known; choose one of openvino, onnxruntime"):
        RuntimeNetwork(graphs("EDSR FP"), "tensorrt")
    with pytest.raises(OptionsError, match="'bf16' is for OpenVINO only"):
        RuntimeNetwork(graphs("EDSR FP"), "onnxruntime", precision="bf16")


def test_what_is_not_installed_is_named(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(OptionsError, match=r"'onnx' is needed .* `pip install -e '\.\[deploy\]'`"):
        require("onnx")


HANDLED = """
import os, signal, sys
from basicsr.deploy.runtimes import RuntimeNetwork
signal.signal(signal.SIGUSR1, lambda *_: sys.stdout.write("handled"))
networks = [RuntimeNetwork(sys.argv[1], "openvino", threads=1) for _ in range(3)]
for _ in range(3):
    del networks[0]
    os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_networks_that_end_in_any_order(graphs):
    """On processors with AMX OpenVINO gives signal handlers a stack, which must outlive the networks that brought it."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", HANDLED, str(graphs("EDSR body"))]
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled" * 3), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of this process is asked of Linux")
def test_sizes_of_pictures_do_not_add_up_in_openvino(graphs):
    """By default OpenVINO keeps half a megabyte for each new size, even for a tiny network, and this would be 100 MiB."""
    pytest.importorskip("openvino")
    network, pages = RuntimeNetwork(graphs("EDSR FP"), "openvino", threads=1), []
    for number in range(400):
        network(torch.rand(1, 3, 10 + number % 20, 10 + number // 20))
        pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert (pages[-1] - pages[199]) * resource.getpagesize() < 50 * 2**20


def test_what_a_graph_says_is_checked(graphs):
    pytest.importorskip("onnxruntime")

    def run(key, value, size=(5, 7)):
        model = onnx.load(graphs("EDSR FP"))
        entries = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
        onnx.helper.set_model_props(model, {k: v for k, v in entries.items() if v is not None})
        return RuntimeNetwork(model, "onnxruntime", threads=1)(torch.rand(1, 3, *size))

    for key in ("layout", "channels", "range"):  # graphs of earlier versions do not have them
        assert run(key, None).shape == (1, 3, 10, 14)
    for key, value, right in (("layout", "NHWC", "NCHW"), ("channels", "BGR", "RGB"), ("range", "0..255", "0..1")):
        with pytest.raises(CheckpointError, match=f"whose {key} is {value}, but {right} is .*basicsr/export.py"):
            run(key, value)
    with pytest.raises(
        CheckpointError, match=r"makes \(1, 3, 10, 14\) of \(1, 3, 5, 7\), but it says that its scale is 3"
    ):
        run("scale", "3")
    for key, value in (("scale", "two"), ("scale", "0"), ("size_multiple", None), ("size_multiple", "-8")):
        with pytest.raises(CheckpointError, match=f"its {key} is '{value or ''}', but a whole number of at least 1"):
            run(key, value)
    with pytest.raises(CheckpointError, match=f"its scale is '{40 * '9'}', but a whole number"):
        run("scale", 5000 * "9")
    damaged = (
        onnx.load(graphs("EDSR FP")).SerializeToString().replace(b"scale\x12\x012", b"scale\x12\x01\x80")
    )  # no text in UTF-8
    with pytest.raises(CheckpointError, match="its scale is '\ufffd', but a whole number"):
        RuntimeNetwork(onnx.load_model_from_string(damaged), "onnxruntime", threads=1)


def test_graphs_with_the_right_words_that_are_others_are_refused(graphs):
    pytest.importorskip("onnxruntime")
    model = onnx.load(graphs("EDSR FP"))
    model.graph.input[0].name = "x"
    with pytest.raises(CheckpointError, match=r"inputs and outputs named \['x'\] and \['sr'\], but \['lr'\]"):
        RuntimeNetwork(model, "onnxruntime")
    model = onnx.load(graphs("EDSR FP"))
    del model.graph.node[0]
    for runtime in RUNTIMES:
        pytest.importorskip(runtime)
        with pytest.raises(CheckpointError, match=f"cannot be run by {runtime}: .*Export the network again"):
            RuntimeNetwork(model, runtime)
