"""Which instruction sets a processor has, and graphs that are timed with one of them."""

import pytest
import torch

from basicsr.deploy.onnx_export import save_onnx
from benchmarks.instruction_sets import FLAGS, instruction_sets, limited_latencies
from tests import tiny
from tests.deploy.networks import calibrated

pytestmark = pytest.mark.slow


def test_sets_are_read_from_the_flags(tmp_path):
    information = tmp_path / "cpuinfo"
    information.write_text("model name\t: amx_int8 9000\nflags\t\t: fpu avx2 avx512f avx512bw avx512_vnni\n\n" * 2)
    assert instruction_sets(information) == ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"]
    assert instruction_sets(tmp_path / "absent") == []
    assert set(instruction_sets()) <= set(FLAGS)


def test_graphs_are_timed_in_a_process_with_the_limit(tmp_path):
    for package in ("onnx", "onnxscript", "openvino"):
        pytest.importorskip(package)
    if "AVX2" not in instruction_sets():
        pytest.skip("this processor has no AVX2")
    network = calibrated("body", 4, options={"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]})[0]
    save_onnx(network, tmp_path / "network.onnx")
    milliseconds = limited_latencies("AVX2", {"4 bits": tmp_path / "network.onnx"}, torch.get_num_threads())
    assert list(milliseconds) == ["4 bits"] and milliseconds["4 bits"] > 0
