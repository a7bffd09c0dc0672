"""The benchmark of kept memory: what it measures runs, and its table pairs both settings."""

import pytest

pytestmark = pytest.mark.slow

EDSR_STEP = "EDSR-baseline, step of full-precision training"


@pytest.fixture
def benchmark(load_benchmark, monkeypatch):
    module = load_benchmark("memory")
    monkeypatch.setattr(module, "REPEATS", 1)
    monkeypatch.setattr(module, "SIDE", 16)
    monkeypatch.setattr(module, "INFERENCE_SIDE", 16)
    return module


@pytest.mark.parametrize("name", [EDSR_STEP, "EDSR-baseline, inference"])
def test_work_runs(benchmark, name):
    (work,) = (work for work in benchmark.WORK if work.startswith(name))
    assert benchmark.median_seconds(work, keep=True) > 0


def test_the_ratio_is_the_median_of_pairs(benchmark, monkeypatch):
    times = {False: iter([3.0, 8.0, 2.0]), True: iter([1.0, 2.0, 2.0])}
    monkeypatch.setattr(benchmark, "WORK", {EDSR_STEP: ("train_FP", "edsr_baseline")})
    monkeypatch.setattr(benchmark, "ROUNDS", 3)
    monkeypatch.setattr(benchmark, "measure", lambda work, keep: next(times[keep]))
    assert benchmark.run().splitlines()[-1] == f"| {EDSR_STEP} | 3.000 | 2.000 | 3.00 |"
