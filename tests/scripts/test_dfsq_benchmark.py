"""The DFSQ benchmark on a tiny EDSR: its tables have the rows they should, and no selection beats the exact one."""

import pytest

from basicsr.utils.options import load_options
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("dfsq")


def test_the_tables_of_a_tiny_network(benchmark, tmp_path):
    changes = tiny.train_overrides(tmp_path, architecture="EDSR")
    report = benchmark.report(load_options(tiny.ROOT / benchmark.OPTIONS_FILE, [benchmark.NETWORK, *changes]), (3, 2))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("| ")]
    errors = [row for row in rows if row[1] in ("mean and max", "max (after ReLU)")]
    times = [row for row in rows if row[1] in benchmark.SELECTIONS]
    assert [(row[0], row[2]) for row in errors] == [("3", "2"), ("3", "2"), ("2", "2"), ("2", "2")]
    assert len(times) == 2 * len(benchmark.SELECTIONS)
    for row in errors:
        published, released, exact, pinned = (float(cell) for cell in row[4:])
        assert exact == 100
        assert published >= 100
        assert released >= pinned >= 100
    fidelities = {(row[0], row[1]): float(row[5]) for row in times}
    assert fidelities["3", "exact"] > fidelities["2", "exact"] > 10
