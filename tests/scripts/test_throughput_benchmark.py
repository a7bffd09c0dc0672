"""The benchmark of throughput on few small pictures."""

import pytest

pytestmark = pytest.mark.slow
for package in ("onnx", "onnxscript", "openvino"):
    pytest.importorskip(package)


def test_both_ways_write_the_same_files(load_benchmark, monkeypatch, tmp_path):
    benchmark = load_benchmark("throughput")
    written = []
    monkeypatch.setattr(benchmark, "PICTURES", 2)
    monkeypatch.setattr(benchmark, "SIDES", (16,))
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    speed = benchmark.speed

    def spied(way, stages, files):
        value = speed(way, stages, files)
        written.append([output.read_bytes() for _, output in files])
        return value

    monkeypatch.setattr(benchmark, "speed", spied)
    row = benchmark.run().splitlines()[-1].strip("| ").split(" | ")
    assert row[0] == "16" and all(float(cell) > 0 for cell in row[1:])
    assert written[0] == written[1] and len(written[0]) == 2
