"""The benchmark of calibrations calibrates the same network both ways."""

import re

from basicsr.quant.kernels import counting


def test_rows_of_small_calibrations(load_benchmark, monkeypatch):
    benchmark = load_benchmark("calibration")
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    monkeypatch.setattr(
        benchmark, "RUNS", {name: run for name, run in benchmark.RUNS.items() if name.startswith("RDN")}
    )
    small = benchmark.calibration_set
    monkeypatch.setattr(benchmark, "calibration_set", lambda options: Crops(small(options).lq[:1, :, :16, :16]))
    used = []
    library = counting._library
    monkeypatch.setattr(counting, "_library", lambda: used.append(1) or library())
    (row,) = benchmark.run().splitlines()[4:]
    number = r"\d+\.\d \(\d+\.\d\)"
    assert re.fullmatch(rf"\| RDN-small, DOBI \| {number} \| {number} \| \d+\.\d\d \|", row)
    calls = len(used)
    assert calls > 0 and calls % 2 == 0  # once to warm up and once by loops, never by operators


class Crops:
    def __init__(self, lq):
        self.lq = lq
