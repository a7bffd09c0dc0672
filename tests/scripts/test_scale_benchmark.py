"""The benchmark of scale: its processes tell what they cost, on the smallest sizes, and tables have exponents."""

import pytest


@pytest.mark.slow
def test_what_processes_cost(load_benchmark, tmp_path):
    benchmark = load_benchmark("scale")
    for seconds, memory in (benchmark.calibration(1), benchmark.enlarging(8, tmp_path)):
        assert seconds > 0 and 50 < memory < 5000
    assert (tmp_path / "out" / "8_x4.png").is_file()


def test_the_exponents_of_a_table(load_benchmark):
    benchmark = load_benchmark("scale")
    assert benchmark.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    lines = benchmark.table("crops", {2: (1.0, 100.0), 4: (2.0, 100.0)}, [2, 4]).splitlines()
    assert lines[2:] == ["| 2 | 1.0 | 100 |", "| 4 | 2.0 | 100 |", "| exponent | 1.00 | 0.00 |"]
