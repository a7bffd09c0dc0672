"""The benchmark of training steps takes the same steps both ways."""

import re


def test_rows_of_small_steps(load_benchmark, monkeypatch):
    benchmark = load_benchmark("quantizers")
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    monkeypatch.setattr(benchmark, "CROPS", 1)
    kinds = {name: (*kind[:2], 1, 16) for name, kind in benchmark.RUNS.items() if name.startswith("EDSR")}
    monkeypatch.setattr(benchmark, "RUNS", kinds)
    rows = benchmark.run().splitlines()[4:]
    assert len(rows) == len(kinds) == 4
    assert all(
        re.fullmatch(r"\| EDSR-baseline, \w+ \| 1 x 16 x 16 \| \d+ \| \d+ \| \d+ \| \d+\.\d\d \|", row) for row in rows
    )
