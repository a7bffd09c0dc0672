"""The benchmark of ONNX Runtime on a tiny network: each graph has its figures, and the one for any runtime runs as it stands."""

import pytest

from tests import tiny

pytestmark = pytest.mark.slow

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


def test_the_graphs_and_their_figures(load_benchmark, monkeypatch, tmp_path):
    benchmark = load_benchmark("onnxruntime")
    monkeypatch.chdir(tiny.ROOT)
    changes = (
        "network=edsr_baseline",
        *tiny.train_overrides(tmp_path, architecture="EDSR"),
        "quantization:coverage=full",
    )
    for name, value in {"CASES": (benchmark.Case("tiny", changes),), "ROUNDS": 1, "SET5": "name=tiny"}.items():
        monkeypatch.setattr(benchmark, name, value)
    opened = []
    monkeypatch.setattr(benchmark, "_opened", lambda file, threads, real=benchmark._opened: opened.append(real(file, threads)) or opened[-1])  # fmt: skip
    lines = benchmark.run().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| tiny")]
    assert [row[1] for row in rows] == ["1", "2"]
    psnr = [float(cell) for cell in rows[0][5:]]
    assert psnr == pytest.approx([psnr[0]] * 3, abs=0.2)
    kernels = [{kernel.name for kernel in network.profile(benchmark.timed_picture())} for network in opened[:3]]
    assert [("QLinearConv" in names, "DequantizeLinear" in names) for names in kernels[:2]] == [
        (False, False),
        (False, True),
    ]
    assert "QLinearConv" in kernels[2]
    assert any(line.startswith("| QLinearConv |") and line.endswith("| yes |") for line in lines)
