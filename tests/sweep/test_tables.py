"""Tables, CSV and plots of fixed records; published results stand beside ours only where the protocol is the same."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from basicsr.sweep import plot
from basicsr.sweep.published import PublishedResults
from basicsr.sweep.rows import COLUMNS, rows_of, write_csv
from basicsr.sweep.tables import markdown

GOLDEN = Path(__file__).parent / "golden_tables.md"
SET5 = {"SwinIR-light": 32.2, "EDSR-baseline": 31.9, None: 28.42}


def record(method, bits=32, psnr=None, ssim=0.89, fidelity=None, arch="SwinIR-light", seed=0, **changes):
    """Return a record as a finished run leaves it."""
    quantized = bits != 32
    psnr = SET5[arch] if psnr is None else psnr
    means = {
        "psnr": psnr,
        "ssim": ssim,
        **({"fidelity": fidelity} if fidelity else {}),
        "images": {"baby": {"psnr": psnr}},
    }
    coverage = "2dquant" if arch == "SwinIR-light" else "body"
    granularity = changes.pop("granularity", "per_tensor")
    quantization = {"coverage": coverage, "weight_granularity": granularity, "activation_granularity": granularity}
    content = {
        "run": f"{arch}_{method}_x4_bit{bits}_seed{seed}",
        "arch": arch,
        "method": method,
        "published": method,
        "seed": seed,
        "iterate": "last" if quantized else None,
        "iterations": 80 if quantized else None,
        "share": 0.02 if quantized else None,
        "activation_ranges": "static" if quantized else None,
        "seconds": {"calibration": 3.25, "training": 60.0} if quantized else {},
        "squared_error": {"weights": 1e-6, "activations": 1e-3} if quantized else {},
        "full_precision": {"file": "fp.pth", "sha256": "0"} if arch else None,
        "metrics": {
            "scale": 4,
            "w_bits": bits,
            "a_bits": bits,
            "coverage": coverage if quantized else None,
            "protocol": {"crop_border": None, "test_y_channel": True, "pad": "official", "self_ensemble": False},
            "complexity": {"bytes": 1000},
            "datasets": {"Set5": means},
            "provenance": {"commit": "abc"},
        },
        "options": {
            "quantization": quantization if quantized else None,
            "calibration": {"activations": {"type": "DOBI", "search": "auto"}},
            "train": {"total_iter": 80, "batch_size": 4} if quantized else None,
        },
    }
    return {**content, **changes}


@pytest.fixture
def records():
    """Two architectures, two bit widths, two seeds of one method, a dynamic method, one method on a second dataset."""
    two = record("2DQuant", 4, 31.9, 0.885, 55.0)
    two["metrics"]["datasets"]["demo"] = {"psnr": 30.43, "ssim": 0.8362, "images": {"a": {}, "b": {}}}
    dynamic = {"activation_ranges": "dynamic", "granularity": "per_channel"}
    return [
        record("Bicubic", arch=None),
        record("FP"),
        record("MinMax", 4, 31.0, 0.87, 45.0),
        two,
        record("MinMax", 2, 25.0, 0.7, 30.0, seed=0),
        record("MinMax", 2, 25.5, 0.71, 31.0, seed=1),
        record("2DQuant", 2, 29.0, 0.8, 40.0),
        record("FP", arch="EDSR-baseline"),
        record("DFSQ", 4, 31.7, 0.88, 50.0, arch="EDSR-baseline", **dynamic),
        record("MinMax", 4, 31.7, 0.879, 51.0, arch="EDSR-baseline"),
    ]


def test_golden_tables(records):
    text = markdown("demo", rows_of(records, PublishedResults.load()), ["SwinIR-light_DOBI_x4_bit4"])
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_what_is_not_trained_has_no_iterations():
    rows = rows_of([record("MinMax", 4, 31.0, iterations=0)], PublishedResults.load())
    assert rows[0]["batch_size"] is None and "| static | - | 3.2 |" in markdown("demo", rows, [])


def test_recipes_with_seeds_of_their_own_are_no_repetitions():
    runs = [record("MinMax", 4, 31.0, seed=0), record("2DQuant", 4, 31.9, seed=3407)]
    assert "standard deviation" not in markdown("demo", rows_of(runs, PublishedResults.load()), [])


def test_methods_with_fewer_seeds_are_named():
    seeds = {"LSQ": (0, 1, 2), "ODM": (1, 2), "PAMS": (0,)}
    runs = [record(method, 2, 29.0 + seed, seed=seed) for method, own in seeds.items() for seed in own]
    text = markdown("demo", rows_of(runs, PublishedResults.load()), [])
    assert "over the seeds 0, 1, 2 (fewer have ODM 2/2: 1, 2)." in text


def test_csv_holds_every_row(records, tmp_path):
    write_csv(rows_of(records, PublishedResults.load()), tmp_path / "results.csv")
    rows = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8")))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(records) + 1
    two = next(row for row in rows if row["method"] == "2DQuant" and row["w_bits"] == "4")
    assert (two["psnr"], two["psnr_change"], two["published_psnr"], two["published_psnr_change"]) == (
        "31.9", "-0.3", "31.77", "-0.68",
    )  # fmt: skip
    assert (two["iterations"], two["batch_size"], two["share"]) == ("80", "4", "0.02")
    assert (two["activation_calibrator"], two["activation_search"], two["activations_error"]) == (
        "DOBI",
        "auto",
        "0.001",
    )
    assert two["coverage"] == "2dquant" and two["iterate"] == "last" and two["training_seconds"] == "60.0"
    assert rows[0]["arch"] == "" and rows[0]["psnr_change"] == ""


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "auto"),
        ({"by_output": ["*.av.a_quantizer"]}, "auto by output"),
        ({"by_output": ["*.av.a_quantizer"], "by_gradient": 32}, "auto by gradient"),
        ({"by_output": ["*.av.a_quantizer"], "fold_norms": 8}, "auto folded"),
        ({"by_gradient": 32, "weight_fit": 8}, "auto fitted"),
    ],
)
def test_searches_that_something_follows_have_names_of_their_own(changes, name):
    run = record("DOBI", 4, 31.0)
    run["options"]["calibration"] |= changes
    assert {row["activation_search"] for row in rows_of([run], PublishedResults.load())} == {name}


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "EDSR-large"},
        {"published": "2DQuant (ours)"},
        {"scale": 3},
        {"dataset": "demo"},
        {"w_bits": 8},
        {"coverage": "full"},
        {"activation_ranges": "dynamic"},
        {"on_y": False},
        {"self_ensemble": True},
        {"crop_border": 0},
    ],
)
def test_another_protocol_is_not_compared(change):
    published = PublishedResults.load()
    (row,) = rows_of([record("2DQuant", 4, 31.9)], published)
    value = published.find(row)
    assert value.psnr == 31.77 and value.change == pytest.approx(31.77 - 32.45)
    other = published.find({**row, "crop_border": 4, **change})
    assert other is None or other.psnr != value.psnr


def test_dynamic_ranges_are_compared_with_dynamic_ones():
    published = PublishedResults.load()
    for method, ranges, found in [("DFSQ", "dynamic", True), ("DFSQ", "static", False), ("BRECQ", "static", True)]:
        (row,) = rows_of([record(method, 4, 31.7, arch="EDSR-baseline", activation_ranges=ranges)], published)
        assert (published.find(row) is not None) == found


@pytest.mark.slow
def test_plots(records, tmp_path):
    rows = rows_of(records, PublishedResults.load())
    for name in ("first", "second"):
        plot.draw(rows, "Set5", tmp_path / f"{name}.svg")
    drawing = ElementTree.parse(tmp_path / "first.svg").getroot()
    shapes = {element.get("d") for element in drawing.iter("{http://www.w3.org/2000/svg}path")}
    assert float(drawing.get("width").removesuffix("pt")) > 900 and len(shapes) > 50
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_values_far_below_the_others_leave_the_panel(records, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    near = [record(name, 4, psnr) for name, psnr in zip("ABCDE", (31.7, 31.8, 31.9, 32.0, 32.1), strict=True)]
    bicubic, full, *_ = records
    for shown in ([full, *near], [bicubic, full, *near, record("Broken", 4, 12.5)]):
        plot.draw(rows_of(shown, PublishedResults.load()), "Set5", tmp_path / "a.svg")
    whole, cut = (figure.axes[0] for figure in figures)
    assert whole.get_ylim()[0] < 31.7 and not whole.texts
    assert 31 < cut.get_ylim()[0] < 31.7 and cut.get_ylim()[1] > 32.2
    assert sorted(text.get_text().split()[-2] for text in cut.texts) == ["12.50", "28.42"]


MAE = {"label": "MAE", "unit": "levels", "decimals": 1, "higher_is_better": False, "compares": "hr", "in_plots": True}


def with_mean_error(content, value):
    """Return a record of a run that measured PSNR and a metric of which less is better."""
    psnr = {**MAE, "label": "PSNR", "unit": "dB", "decimals": 3, "higher_is_better": True}
    content["metrics"]["metrics"] = {"psnr": psnr, "mae": MAE}
    content["metrics"]["datasets"]["Set5"] |= {"mae": value}
    return content


def test_any_metric_is_in_tables_csv_and_plots(tmp_path, monkeypatch):
    full, first, second = record("FP"), record("MinMax", 4, 31.0), record("2DQuant", 4, 31.5)
    runs = [with_mean_error(run, value) for run, value in ((full, 1.0), (first, 2.5), (second, 1.75))]
    rows = rows_of(runs, PublishedResults.load())
    text = markdown("demo", rows, [])
    assert "Cells hold PSNR (dB) / MAE (levels). Less is better of MAE." in text.replace("\n", " ")
    assert "| **31.500** / **1.8** |" in text and "| 31.000 / 2.5 |" in text
    write_csv(rows, tmp_path / "results.csv")
    assert [row["metric_mae"] for row in csv.DictReader((tmp_path / "results.csv").open())] == ["1.0", "2.5", "1.75"]
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, _: figures.append(figure))
    plot.draw(rows, "Set5", tmp_path / "a.svg")
    assert [axes.get_ylabel() for axes in figures[0].axes] == ["PSNR (dB)", "MAE (levels)"]


def test_records_of_before_and_of_other_metrics_stand_in_one_table():
    runs = [record("FP"), record("MinMax", 4, 31.0, 0.87, 45.0), with_mean_error(record("2DQuant", 4, 31.5), 1.75)]
    text = markdown("demo", rows_of(runs, PublishedResults.load()), [])
    assert "31.000 / 0.8700 / 45.00 / -" in text and "31.500** / - / - / 1.8" in text
