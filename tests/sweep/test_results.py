"""What a sweep leaves of its records: tables, plots, and a report with the metrics against bits."""

import pytest

from basicsr.metrics.stated import DEFAULT_METRICS
from basicsr.sweep.grid import load_grid
from basicsr.sweep.plan import plan
from basicsr.sweep.records import Places, write_record
from basicsr.sweep.results import write_tables
from basicsr.utils.files import write_json
from tests import tiny_grid
from tests.reporting.folders import PROTOCOL
from tests.reporting.pages import PageParser

BITS = (4, 3, 2)


def bits_of(run):
    """Return the bits of weights and activations; None where nothing is quantized."""
    return run.options.w_bits if run.kind == "quantized" else None


def measure(run, places, psnr):
    """Leave the results of a run, and its record."""
    bits = bits_of(run) or 32
    values = {"psnr": psnr, "ssim": psnr / 40, "fidelity": psnr + 10}
    content = {
        "network": run.options.network_g["type"], "method": run.method, "scale": run.scale, "w_bits": bits, "a_bits": bits, "coverage": None,
        "activation_ranges": "static", "weights": None, "protocol": PROTOCOL,
        "complexity": {"parameters": 1000, "bytes": 125.0 * bits},
        "metrics": {name: traits.as_dict() for name, traits in DEFAULT_METRICS.items()},
        "datasets": {"demo": {**values, "images": {"a": values}}}, "provenance": {"commit": "abc1234"},
    }  # fmt: skip
    write_json(places.results(run), content)
    return write_record(run, places)


@pytest.fixture
def sweep(tmp_path):
    """The runs of a tiny grid at three numbers of bits, all of them finished, and its folders."""
    runs = plan(load_grid(tiny_grid.write(tmp_path, bits=list(BITS))), tmp_path)
    places = Places(tmp_path, tmp_path / "output", tmp_path / "logs")
    for number, run in enumerate(runs):
        measure(run, places, 31.0 - 0.125 * number)
    return runs, places


def test_a_report_has_the_metrics_of_all_records_against_bits(sweep):
    runs, places = sweep
    lines = []
    write_tables("tiny", runs, places, lines.append)
    page = PageParser((places.output / "report.html").read_text(encoding="utf-8"))
    for title in ("PSNR (dB) against bits", "SSIM against bits", "fidelity (dB) against bits"):
        assert title in page.text
    for label in ("2/2", "3/3", "4/4", "bits of weights / activations"):
        assert label in page.text
    quantized = {row[0]: row[3] for table in page.tables for row in table[1:] if row[1] != "32/32"}
    expected = {
        f"{run.method} {bits_of(run)}/{bits_of(run)}": f"{31.0 - 0.125 * number:.3f}"
        for number, run in enumerate(runs)
        if bits_of(run)
    }
    assert len(expected) == 6 and quantized == expected
    assert "SwinIR-tiny x4 on demo" in page.text
    assert f"{len(runs)} of {len(runs)} runs" in lines[-1]


def test_what_is_not_finished_is_named_shortly(sweep):
    runs, places = sweep
    quantized = [run for run in runs if bits_of(run)]
    first, second = dict.fromkeys(run.method for run in quantized)
    one = next(run for run in quantized if run.method == second and bits_of(run) == 2)
    for run in quantized:
        if run.method == first or run is one:
            places.record(run).unlink()
    write_tables("tiny", runs, places, lambda line: None)
    text = (places.output / "tables.md").read_text()
    assert f"Not finished:\n\n- {one.name}\n- {one.arch} x4 ({first})\n\n" in text


def test_a_report_of_part_of_a_sweep_holds_what_is_finished(sweep):
    runs, places = sweep
    gone = next(run for run in runs if bits_of(run) == 3)
    places.record(gone).unlink()
    write_tables("tiny", runs, places, lambda line: None)
    page = PageParser((places.output / "report.html").read_text(encoding="utf-8"))
    labels = {row[0] for table in page.tables for row in table[1:]}
    assert f"{gone.method} 3/3" not in labels and f"{gone.method} 2/2" in labels
    assert "PSNR (dB) against bits" in page.text
