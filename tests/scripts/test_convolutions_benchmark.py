"""The benchmark of convolutions in ONNX Runtime, on a small size: each form runs by the kernel that it is there for."""

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime")


def test_each_form_has_its_kernel(load_benchmark, monkeypatch):
    benchmark = load_benchmark("convolutions")
    for name, value in {"LAYERS": 2, "CHANNELS": 16, "SIDE": 8, "ROUNDS": 1}.items():
        monkeypatch.setattr(benchmark, name, value)
    rows = [line.strip("| ").split(" | ") for line in benchmark.run().splitlines()[4:]]
    assert [kernel for *_, kernel in rows] == ["Conv", "QLinearConv", "FusedConv", "ConvInteger"]
    assert all(float(milliseconds) >= 0 for _, milliseconds, _ in rows)
