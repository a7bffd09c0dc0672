"""The benchmark harness finds its benchmarks; the DOBI benchmark compares like with like."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.dobi_calibrator import DOBICalibrator
from basicsr.quant.spec import QuantSpec

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    script = str(REPOSITORY / "scripts" / "benchmark.py")
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def test_names_are_listed():
    listed, unknown = run(), run("dobi", "speed_of_light")
    assert listed.returncode == 0
    assert "dobi" in listed.stdout
    assert unknown.returncode == 2
    assert "no benchmark called speed_of_light" in unknown.stderr
    assert "dobi" in unknown.stderr


def test_a_benchmark_prints_its_tables_under_the_hardware(load_script, load_benchmark, monkeypatch, capsys):
    script, benchmark = load_script("benchmark"), load_benchmark("dobi")
    monkeypatch.setattr(benchmark, "NUM_ELEMENTS", 20_000)
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    small = list(benchmark.synthetic_tensors(6_400))
    monkeypatch.setattr(benchmark, "synthetic_tensors", lambda: small)
    monkeypatch.setattr(script, "_load", lambda name, file: {"dobi_benchmark.py": benchmark}[file.name])
    assert script.main(["dobi"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in head and "1 threads" in head
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| ")}
    assert cells["ratio"][1].strip() == "same winner"
    assert cells["loop over all candidates"][1] == cells["histogram and exact second pass"][1]
    assert [cells[name][2].strip() for name in ("normal", "uniform", "ReLU")] == ["symmetric", "symmetric", "one_sided"]


def test_parts_of_a_text_are_printed_as_they_come(load_script, monkeypatch, capsys):
    script = load_script("benchmark")

    class Parts:
        @staticmethod
        def run():
            yield "first"
            assert capsys.readouterr().out.endswith("\nfirst\n")
            yield "second"

    monkeypatch.setattr(script, "_load", lambda name, file: Parts)
    assert script.main(["dobi"]) == 0
    assert capsys.readouterr().out == "\nsecond\n"


def test_both_searches_find_the_same_winner(load_benchmark):
    benchmark = load_benchmark("dobi")
    values = benchmark.long_tailed(20_000)
    bounds = calibrate_tensor(DOBICalibrator(QuantSpec(4), search="symmetric"), values)
    assert benchmark.winner_of(bounds, values, 100) == benchmark.exhaustive_winner(values, 4, 100)


def test_table_of_savings(load_benchmark):
    benchmark = load_benchmark("dobi")
    table = benchmark.joint_savings([("layer.0", torch.randn(2000)), ("layer.1", torch.randn(2000).relu())], bits=3)
    rows = [line for line in table.splitlines() if line.startswith("| layer")]
    assert [row.split("|")[1].strip() for row in rows] == ["layer.0", "layer.1"]
    for row in rows:
        automatic, joint = (float(cell) for cell in row.split("|")[2:4])
        assert joint <= automatic <= 100


def test_training_with_every_option_that_this_machine_has(load_benchmark, monkeypatch):
    benchmark = load_benchmark("training")
    for name, value in (("SECONDS", 0.01), ("REPEATS", 1), ("WARM_UP", 1)):
        monkeypatch.setattr(benchmark, name, value)
    monkeypatch.setattr(benchmark, "NETWORKS", {"EDSR-baseline": "EDSR"})
    monkeypatch.setattr(benchmark, "SIZES", {("EDSR", device): (2, 8) for device in ("cpu", "cuda")})
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    lines = benchmark.run().splitlines()
    assert lines[2].startswith("| options | EDSR-baseline, cpu, 2 x 8 x 8 |")
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines[4:]}
    assert set(cells) == set(benchmark.OPTIONS) and cells["+ CUDA graph"] == "-"
    assert float(cells["images loaded by workers, float32"]) > 0
    assert float(cells["+ images held in memory"].split()[0]) > 0
