"""The benchmark of SwinIR-light, on small pictures: both implementations agree, and every row has its figures."""

import pytest
import torch


@pytest.fixture
def benchmark(load_benchmark, monkeypatch):
    module = load_benchmark("swinir")
    monkeypatch.setattr(module, "_REPEATS", 2)
    rand = torch.rand
    monkeypatch.setattr(
        torch, "rand", lambda shape, *rest, **options: rand(*_small(shape, rest), **options)
    )  # the network is whole, the pictures are not
    return module


def _small(shape, rest):
    number, channels, *size = shape if isinstance(shape, tuple) else (shape, *rest)
    return (number, channels, *(side // 8 for side in size))


@pytest.mark.slow
def test_the_table(benchmark):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in benchmark.run().splitlines()[4:]]
    assert [row[0] for row in rows] == [
        "inference 1 x 3 x 96 x 96",
        "inference 1 x 3 x 128 x 120",
        "inference 4 x 3 x 64 x 64",
        "forward and backward 2 x 3 x 64 x 64",
    ]
    assert all(float(cell) > 0 for row in rows for cell in row[1:4])
    assert all(float(row[4]) < 1e-4 for row in rows[:3])


def test_the_ratio_is_the_median_of_pairs(benchmark, monkeypatch):
    times = iter([9.0, 9.0, 3.0, 1.0, 8.0, 2.0, 2.0, 2.0])  # the first pair warms up
    monkeypatch.setattr(benchmark, "_REPEATS", 3)
    monkeypatch.setattr(benchmark, "_time", lambda function, device: next(times))
    assert benchmark._compare(None, None, torch.device("cpu")) == "3.000 | 2.000 | 3.00"
