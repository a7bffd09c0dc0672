"""The comparison with NNCF on a tiny network: every graph has its row, and the passes change time alone."""

import pytest

from basicsr.deploy.runtimes import has_bfloat16
from benchmarks import peers_benchmark
from benchmarks.nncf_graphs import MIXED
from tests import tiny

pytestmark = pytest.mark.slow

for package in ("onnx", "onnxscript", "openvino"):
    pytest.importorskip(package)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr(peers_benchmark, "ROUNDS", 1)
    monkeypatch.setattr(peers_benchmark, "_SET5", "name=tiny")  # the pictures of the repository
    changes = (
        "network=edsr_baseline",
        *tiny.train_overrides(tmp_path, architecture="EDSR"),
        "quantization:coverage=full",
    )

    def make(*presets):
        return peers_benchmark.Case("tiny", changes, presets, True)

    return make


def rows_of(case, folder):
    return {
        row[0]: row[1:]
        for row in (line.strip("| ").split(" | ") for line in peers_benchmark._table(case, folder).splitlines()[4:])
    }


def test_the_rows_of_this_project(case, tmp_path):
    rows = rows_of(case(), tmp_path)
    kinds = ("full precision", "this project")
    suffixes = ("", ", bf16") if has_bfloat16() else ("",)
    names = [name for kind in kinds for name in (kind, f"{kind}, shuffles as in PyTorch")]
    assert list(rows) == [f"{name}{suffix}" for name in names for suffix in suffixes]
    assert all(float(milliseconds) > 0 for milliseconds, _ in rows.values())
    assert all(rows[kind][1] == rows[f"{kind}, shuffles as in PyTorch"][1] for kind in kinds), "PSNR stays"


def test_the_rows_of_nncf(case, tmp_path):
    pytest.importorskip("nncf")
    rows = rows_of(case(MIXED), tmp_path)
    own, other = (float(rows[name][1]) for name in ("full precision", "NNCF, mixed, of this project's graph"))
    assert other == pytest.approx(own, abs=1.5) and other != own
