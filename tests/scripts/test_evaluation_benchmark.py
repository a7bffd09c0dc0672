"""The benchmark of an evaluation times all its parts, on pictures that go the way of `Evaluator.evaluate`."""

import pytest

from benchmarks import evaluation_benchmark
from tests import tiny


@pytest.mark.slow
def test_the_table_has_all_parts(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr(evaluation_benchmark, "NETWORKS", ("edsr_baseline",))
    monkeypatch.setattr(evaluation_benchmark, "ROUNDS", 1)
    monkeypatch.setattr(evaluation_benchmark, "_SET14", "name=none")  # the pictures of the repository
    lines = evaluation_benchmark.run().splitlines()
    seconds = {name: float(value) for name, value in (line.strip("| ").split(" | ") for line in lines[4:])}
    assert "6 pictures of demo" in lines[0]
    assert list(seconds)[:2] == ["reading", "network"] and {"metric psnr", "metric ssim", "metric fidelity"} <= set(
        seconds
    )
    assert seconds["network"] > seconds["metric ssim"] > 0
    assert seconds["cost of the network, as torch counts"] > seconds["cost of the network"] > 0
