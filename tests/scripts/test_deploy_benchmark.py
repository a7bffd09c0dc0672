"""The benchmark of deployment on tiny networks: every table has the rows and figures that it should."""

import re

import pytest

from basicsr.deploy.runtimes import has_bfloat16
from benchmarks.instruction_sets import instruction_sets
from tests import tiny

pytestmark = pytest.mark.slow

for package in ("onnx", "onnxscript", "openvino", "onnxruntime"):
    pytest.importorskip(package)


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("deploy")


def rows_of(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]


def test_the_tables_of_a_tiny_network(benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    changes = (
        "network=edsr_baseline",
        *tiny.train_overrides(tmp_path, architecture="EDSR"),
        "quantization:coverage=body",
    )
    case = benchmark.Case("tiny", tiny.ROOT / "options/train/demo_DOBI.yml", changes)
    (report,) = benchmark.report([case], (4,))
    sizes, latency, instructions, psnr, *kernels = (
        rows_of(part) for part in re.split(r"\n\n(?=\| bits|\| kernel|\| instructions)", report)[1:]
    )
    assert [row[0] for row in sizes] == ["bits", "32", "4"]
    full, packed = (int(row[1].replace(",", "")) for row in sizes[1:])
    assert float(sizes[2][2]) == pytest.approx(full / packed, abs=0.01)
    labels = ["openvino", *(["openvino BF16"] if has_bfloat16() else []), "onnxruntime"]
    assert [row[1] for row in latency if row[0] == "4"] == psnr[0][3:] == labels
    assert all(float(row[2]) >= 0 for row in latency[1:])
    assert [row[0] for row in instructions[1:]] == instruction_sets()
    assert all(float(row[1]) >= 0 and re.fullmatch(r"\d+ \(\d+\.\d\d\)", row[2]) for row in instructions[1:])
    trained = float(psnr[1][1])
    for cell in psnr[1][2:]:
        assert float(cell.split()[0]) == pytest.approx(trained, abs=0.1)
    assert len(kernels) == len(labels) - 1
    assert all(any(row[4] == "yes" for row in table[1:]) for table in kernels)
