"""The page says what the files say, compares like with like, loads nothing and shows everything as text."""

import json
import re

import pytest

from basicsr.reporting.attempt import attempt
from basicsr.reporting.command import make_report
from basicsr.reporting.entries import read_folder
from basicsr.utils.errors import DataError
from tests.reporting import folders
from tests.reporting.pages import PageParser


def report(tmp_path, *paths):
    """Make a report and return its table in Markdown and its parsed page."""
    made = make_report(paths, tmp_path / "out/report.html", "Comparison")
    return made.table, PageParser((tmp_path / "out/report.html").read_text(encoding="utf-8"))


@pytest.fixture
def compared(tmp_path):
    pictures = folders.hr_pictures(tmp_path / "HR")
    common = {"hr": tmp_path / "HR", "pictures": pictures}
    paths = [folders.results(tmp_path, "fp", **common)]
    paths.append(folders.results(tmp_path, "minmax", "MinMax", 2, 25.5, **common))
    paths.append(folders.results(tmp_path, "dobi", "DOBI", 2, 29.25, **common))
    return tmp_path, paths


def test_the_table_holds_what_the_evaluations_measured(compared):
    folder, paths = compared
    table, page = report(folder, *paths)
    assert table.splitlines()[0] == (
        "| method | W/A bits | dataset | PSNR (dB) | SSIM | fidelity (dB) | size (KB) | ratio |"
    )
    assert table.splitlines()[3] == "| MinMax | 2/2 | demo | 25.500 | 0.6375 | 35.50 | 1 | 7.97 |"
    assert (folder / "out/table.md").read_text() == table + "\n"
    heads, *rows = page.tables[0]
    assert heads[:6] == ["method", "W/A bits", "ranges", "PSNR (dB)", "SSIM", "fidelity (dB)"]
    assert [row[:6] for row in rows] == [
        ["FP", "32/32", "–", "31.000", "0.7750", "–"],
        ["MinMax 2/2", "2/2", "static", "25.500", "0.6375", "35.50"],
        ["DOBI 2/2", "2/2", "static", "29.250", "0.7312", "39.25"],
    ]
    assert "SwinIR x4 on demo" in page.text and "4 pixels left out" in page.text
    assert "29.250" in " ".join(re.findall(r"<b>(.*?)</b>", (folder / "out/report.html").read_text()))


def test_the_layers_that_cost_most_are_named_with_their_share(tmp_path):
    folder = folders.experiment(tmp_path, "dobi", "DOBI", 4)
    layers = [
        ("tail.0", {"weight_quantizer": 4, "act_quantizer": 4}, 3e-4, 35.23),
        ("head", {"act_quantizer": 8}, 1e-4, 40.0),
    ]
    keys = ("name", "bits", "mean_squared_error", "fidelity")
    silent = ("unused", {"act_quantizer": 4}, 0.0, None)
    rows = [dict(zip(keys, layer, strict=True)) for layer in (*layers, silent)]
    (folder / "sensitivity.json").write_text(json.dumps(rows))
    _, page = report(tmp_path, folder)
    assert page.tables[-1] == [
        ["layer", "bits", "share of the error", "fidelity (dB)"],
        ["tail.0", "weight_quantizer 4, act_quantizer 4", "75.0%", "35.23"],
        ["head", "act_quantizer 8", "25.0%", "40.00"],
    ]


def test_a_page_needs_no_other_file(compared):
    folder, paths = compared
    _, page = report(folder, *paths)
    for address in page.addresses:
        assert address.startswith(("data:", "#")), address
    text = (folder / "out/report.html").read_text()
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert not re.search(
        r"\b(?:https?:)?//\w", "".join(page.scripts).replace("data:image", "").split('"use strict"')[-1]
    )
    assert len(page.identifiers) == len(set(page.identifiers))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.identifiers)


def test_pictures_are_embedded_without_loss(compared):
    import base64

    import cv2
    import numpy as np

    from basicsr.utils.image import read_image

    folder, paths = compared
    _, page = report(folder, *paths)
    data = json.loads(page.scripts[0])
    assert [picture["name"] for picture in data] == ["one", "two"] and data[0]["crop"] == ""
    versions = {version["label"]: version for version in data[0]["versions"]}
    assert list(versions) == ["HR", "bicubic", "FP", "MinMax 2/2", "DOBI 2/2"]
    encoded = base64.b64decode(versions["MinMax 2/2"]["source"].partition(",")[2])
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded, read_image(paths[1] / "visualization/demo/one.png"))
    assert versions["MinMax 2/2"]["note"] == "PSNR 25.500 dB, SSIM 0.6375, fidelity 35.50 dB"
    assert (folder / "out/comparison.png").is_file()


def test_what_files_hold_is_shown_as_text(tmp_path):
    evil = "<script>alert(1)</script>$x_{$ </script> _a|b"
    pictures = folders.hr_pictures(tmp_path / "HR", names=("one", "<b>&two"))
    common = {"hr": tmp_path / "HR", "pictures": pictures, "dataset": "<i>set"}
    paths = [folders.results(tmp_path, "a", evil, 2, **common), folders.results(tmp_path, "b", evil, 4, **common)]
    table, page = report(tmp_path, *paths)
    assert page.tables[0][1][0].startswith(evil) and page.tables[0][2][0].startswith(evil)
    assert len(page.scripts) == 2, "one block of data, one program"
    assert "alert" not in page.scripts[1] and "<i>set" in page.text
    data = json.loads(page.scripts[0])
    assert {picture["name"] for picture in data} == set(pictures) and data[0]["versions"][2]["label"].startswith(evil)
    assert r"_a\|b" in table


@pytest.mark.slow
def test_other_scales_data_sets_and_pictures_are_not_mixed(tmp_path):
    paths = [
        folders.results(tmp_path, "x4", "A", 2),
        folders.results(tmp_path, "x2", "A", 2, scale=2),
        folders.results(tmp_path, "other", "A", 2, dataset="Set5"),
        folders.results(tmp_path, "fewer", "A", 2, pictures={"one": None}),
        folders.results(tmp_path, "rgb", "A", 2, protocol={**folders.PROTOCOL, "test_y_channel": False}),
        folders.results(tmp_path, "large", "A", 2, complexity={"parameters": 2000, "bytes": 1.0}),
        folders.results(tmp_path, "same", "B", 2),
    ]
    _, page = report(tmp_path, *paths)
    assert [len(table) - 1 for table in page.tables] == [2, 1, 1, 1, 1, 1]
    assert "measured on RGB" in page.text and "SwinIR x2 on demo" in page.text


def test_dynamic_ranges_are_marked(tmp_path):
    paths = [
        folders.results(tmp_path, "a", "DFSQ", 2, activation_ranges="dynamic"),
        folders.results(tmp_path, "b", "A", 2),
    ]
    table, page = report(tmp_path, *paths)
    assert "| DFSQ (dynamic ranges) |" in table
    assert [row[2] for row in page.tables[0][1:]] == ["dynamic", "static"]
    assert "do not compare like for like" in page.text


def test_any_metric_of_the_files_has_a_column(tmp_path):
    folder = folders.results(tmp_path, "a", "A", 2)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["datasets"]["demo"] |= {"lpips_alex": 0.123456, "niqe": None}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    table, page = report(tmp_path, folder)
    assert "lpips_alex" in page.tables[0][0] and "niqe" in page.tables[0][0]
    assert "| 0.1235 | – |" in table


PSNR = {"label": "PSNR", "unit": "dB", "decimals": 1, "higher_is_better": True, "compares": "hr", "in_plots": True}
MAE = {**PSNR, "label": "MAE", "unit": "levels", "decimals": 2, "higher_is_better": False}


def stated(tmp_path, name, method, mae, counted=None, image=None):
    """Write results with PSNR, infinite, and a metric that states that less is better."""
    means = {"psnr": None, "mae": mae, **({"counted": counted} if counted else {})}
    images = {"one": {"psnr": None, "mae": image}, "two": {"psnr": 30.25, "mae": mae}}
    datasets = {"demo": {**means, "images": images}}
    return folders.results(tmp_path, name, method, 2, datasets=datasets, metrics={"psnr": PSNR, "mae": MAE})


def test_a_metric_is_shown_as_it_states_itself(tmp_path):
    paths = [stated(tmp_path, name, name, mae, image=mae) for name, mae in (("A", 3.5), ("B", 1.256), ("C", 2.0))]
    table, page = report(tmp_path, *paths)
    assert page.tables[0][0][3:5] == ["PSNR (dB)", "MAE (levels)"]
    assert [row[3:5] for row in page.tables[0][1:]] == [["∞", "3.50"], ["∞", "1.26"], ["∞", "2.00"]]
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert re.findall(r"<b>(.*?)</b>", text) == ["∞", "∞", "1.26", "∞"], "the lowest error is the best"
    assert "| B | 2/2 | demo | ∞ | 1.26 |" in table and "mean over" not in table + page.text
    assert "MAE (levels) at 2/2 bits" in page.text and "PSNR (dB) at 2/2 bits" not in page.text, (
        "nothing finite to draw"
    )


def test_means_that_leave_pictures_out_say_so(tmp_path):
    paths = [stated(tmp_path, "a", "A", 3.5, {"mae": 1}), stated(tmp_path, "b", "B", None, {"mae": 0})]
    table, page = report(tmp_path, *paths)
    assert [row[4] for row in page.tables[0][1:]] == ["3.50", "–"]
    sentence = "MAE of A 2/2 is the mean over 1 of 2 pictures; it has no value for the others."
    assert sentence in page.text and sentence in table.split("\n\n")[1]
    assert "MAE of B 2/2 has no value for any of 2 pictures." in page.text


def test_a_metric_without_a_stated_direction_has_no_best(tmp_path):
    paths = [folders.results(tmp_path, name, name, 2) for name in "AB"]
    for number, path in enumerate(paths):
        metrics = json.loads((path / "metrics.json").read_text())
        metrics["datasets"]["demo"] = {"lpips_alex": 0.25 + number}
        (path / "metrics.json").write_text(json.dumps(metrics))
    report(tmp_path, *paths)
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "1.2500" in text and "<b>" not in text


def test_pictures_say_what_was_measured_on_them(tmp_path):
    pictures = folders.hr_pictures(tmp_path / "HR")
    images = {"one": {"psnr": None, "mae": None}, "two": {"psnr": 30.25, "mae": 2.0}}
    datasets = {"demo": {"psnr": None, "mae": 2.0, "counted": {"mae": 1}, "images": images}}
    common = {"hr": tmp_path / "HR", "pictures": pictures, "metrics": {"psnr": PSNR, "mae": MAE}}
    _, page = report(tmp_path, folders.results(tmp_path, "a", "A", 2, datasets=datasets, **common))
    notes = [picture["versions"][-1]["note"] for picture in json.loads(page.scripts[0])]
    assert notes == ["PSNR ∞ dB, MAE –", "PSNR 30.2 dB, MAE 2.00 levels"]


def test_two_of_one_name_are_told_apart(tmp_path):
    paths = [folders.results(tmp_path, name, "A", 2) for name in ("first", "second")]
    _, page = report(tmp_path, *paths)
    assert [row[0] for row in page.tables[0][1:]] == ["A 2/2 (first)", "A 2/2 (second)"]


def test_several_bits_are_drawn_against_bits(tmp_path):
    paths = [folders.results(tmp_path, "fp")]
    paths += [
        folders.results(tmp_path, f"{method}{bits}", method, bits, 25 + bits) for method in "AB" for bits in (2, 3, 4)
    ]
    _, page = report(tmp_path, *paths)
    assert "PSNR (dB) against bits" in page.text and "bits of weights / activations" in page.text


def test_what_is_absent_is_said(tmp_path):
    _, page = report(tmp_path, folders.results(tmp_path, "a", "A", 2))
    for sentence in ("val:save_img=true", "No histograms", "No training"):
        assert sentence in page.text
    assert not (tmp_path / "out/comparison.png").exists()
    without = folders.results(tmp_path, "b", "A", 2, hr=tmp_path / "HR", pictures=folders.hr_pictures(tmp_path / "HR"))
    (without / "options.yml").unlink()
    _, page = report(tmp_path, without)
    assert "has an options.yml that tells where the HR pictures of 'demo' are" in page.text


@pytest.mark.slow
def test_a_training_has_its_stages_and_curves(tmp_path):
    folder = folders.experiment(tmp_path, "run")
    _, page = report(tmp_path, folder)
    rows = {row[0]: row for row in page.tables[0][1:]}
    assert list(rows) == ["FP", "2DQuant calibrated 2/2", "2DQuant 2/2"]
    assert rows["2DQuant 2/2"][3] == "29.000" and rows["2DQuant 2/2"][-1] == "9.8"
    for text in ("Losses", "l_pix", "l_feature", "PSNR (dB) in training", "fidelity (dB) in training"):
        assert text in page.text


@pytest.mark.slow
def test_an_evaluation_knows_the_training_of_its_weights(tmp_path):
    folders.experiment(tmp_path, "run")
    path = folders.results(tmp_path, "a", "2DQuant", 2, weights="experiments/run/models/net_Q_latest.pth")
    _, page = report(tmp_path, path)
    assert page.tables[0][1][-1] == "9.8" and "Losses" in page.text


def test_a_line_that_a_killed_run_left_half_is_not_read(tmp_path):
    folder = folders.experiment(tmp_path, "run")
    with (folder / "losses.jsonl").open("a") as file:
        file.write('{"iter": 5, "lo')
    assert [line["iter"] for line in read_folder(folder)[0].training.losses] == [1, 2, 3, 4]


@pytest.mark.slow
def test_layers_with_the_largest_error_are_shown_with_bounds(tmp_path):
    errors = {"A": [0.1, 0.5, 0.3, 0.01, 0.02, 0.03, 0.04, 0.9], "B": [0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]}
    paths = []
    for method, own in errors.items():
        paths.append(folders.results(tmp_path, method, method, 2))
        (paths[-1] / "activations.json").write_text(json.dumps(folders.activations(own)))
    _, page = report(tmp_path, *paths)
    order = re.findall(r"layer(\d)\.act_quantizer", page.text)
    assert order == ["7", "0", "1", "2", "3", "4"]
    assert "A 2/2 : error 0.9, 4 levels from -1 to 1" in page.text.replace("A 2/2:", "A 2/2 :")


def test_options_are_whole_for_the_first_and_differences_for_the_others(compared):
    folder, paths = compared
    text = report(folder, *paths)[1].text
    assert "datasets:test_1:type: PairedImageDataset" in text and text.count("PairedImageDataset") == 1
    assert "method: MinMax" in text and "abc1234" in text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds neither metrics.json"):
        report(tmp_path, tmp_path)


def test_damaged_results_are_named(tmp_path):
    folder = folders.results(tmp_path, "a")
    (folder / "metrics.json").write_text('{"method": "A"}')
    with pytest.raises(DataError, match=r"metrics.json' is not what basicsr/test.py writes"):
        report(tmp_path, folder)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        report(tmp_path, folder)


def test_a_report_that_fails_costs_no_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("basicsr.reporting.page.render", lambda *_: 1 / 0)
    folder = folders.results(tmp_path, "a")
    attempt(tmp_path / "report.html", "A", lambda: read_folder(folder))
    assert "could not be made: division by zero" in caplog.text and not (tmp_path / "report.html").exists()
