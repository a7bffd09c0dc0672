"""The benchmark of layers, on a network of 4 layers and two crops."""

import pytest
import torch

from basicsr.data import build_evaluation_sets
from basicsr.evaluation.evaluator import Evaluator
from basicsr.networks.build import full_precision_network
from basicsr.networks.quantized import quantized_copy
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.options import CalibrationOptions, load_options
from tests import tiny

pytestmark = pytest.mark.slow

NUM_LAYERS = 4


@pytest.fixture(scope="module")
def module(load_benchmark):
    return load_benchmark("layers")


@pytest.fixture(scope="module")
def options(module, tmp_path_factory):
    return load_options(
        tiny.ROOT / module.OPTIONS_FILE, tiny.train_overrides(tmp_path_factory.mktemp("network"), "bit=3")
    )


@pytest.fixture(scope="module")
def benchmark(module, options):
    return module.LayersBenchmark(options, 1, torch.device("cpu"))


def cells(table: str) -> dict[str, list[str]]:
    """Return the cells of the rows below the head, by the first one."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows[2:]}


def test_every_quantizer_is_at_one_kind_of_site(module, options):
    network, _ = quantized_copy(full_precision_network(options), options, share_weights=True)
    for name, _ in named_quantizers(network):
        assert sum(name.endswith(endings) for endings in module.SITES.values()) == 1, name


def test_error_table(module, benchmark):
    rows = cells(benchmark.error_table(3))
    assert list(rows) == list(module.SITES)
    for auto, one_sided, joint, count in rows.values():
        assert count.endswith(f" of {NUM_LAYERS}")
        if count.startswith("0"):
            assert auto == "100.0 (100.0 to 100.0)"
        if count.startswith(str(NUM_LAYERS)):
            assert auto == one_sided
        assert float(joint.split()[0]) <= min(100.0, *(float(cell.split()[0]) for cell in (auto, one_sided)))
    assert len({row[3] for row in rows.values()}) > 1, "auto makes no difference between the kinds of sites"


def test_fidelity_is_that_of_the_calibrated_network(benchmark, options):
    full_precision = full_precision_network(options).eval()
    network, _ = quantized_copy(full_precision, options, share_weights=True)
    calibrator = {"type": "DOBI", "search": "joint"}
    benchmark.fidelity(3, lambda _: "MinMax")  # what was measured before does not matter
    calibrate_network(network, benchmark._crops, CalibrationOptions(weights=calibrator, activations=calibrator))
    dataset = build_evaluation_sets(options.datasets_of("val"), options.scale)[0]
    expected = Evaluator(options.val, options.scale, full_precision).evaluate(network, dataset).means["fidelity"]
    assert benchmark.fidelity(3, lambda _: "joint") == pytest.approx(expected, abs=1e-6)


def test_report(module, benchmark):
    report = benchmark.report([3], [3])
    assert "1 LR crops of 16 x 16" in report
    errors, fidelity, sites = (table for table in report.split("\n\n| ")[1:])
    assert list(cells(f"| {fidelity}")) == list(module.COMBINATIONS)
    assert list(cells(f"| {sites}")) == [*module.ACTIVATION_SITES, "all weights"]
    assert len(cells(f"| {errors}")) == len(module.SITES)
