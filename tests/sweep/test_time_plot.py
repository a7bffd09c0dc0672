"""Accuracy against time: which methods are on the front, and the figure."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest

from basicsr.sweep import time_plot
from basicsr.sweep.published import PublishedResults
from basicsr.sweep.rows import rows_of
from basicsr.sweep.time_plot import Spent, draw_time, front, spent
from tests.sweep.test_tables import record


def timed(method, calibration, training, fidelity, seed=0):
    seconds = {"calibration": calibration, **({} if training is None else {"training": training})}
    return record(method, 4, 31.0, fidelity=fidelity, seed=seed, seconds=seconds)


def test_a_method_that_another_one_beats_in_less_time_is_behind():
    fast, slow, worse = Spent("a", 1, 30), Spent("b", 9, 40), Spent("c", 5, 29)
    equal, dynamic = Spent("d", 9, 35), Spent("e", 2, 45, dynamic=True)
    assert front([slow, worse, equal, fast, dynamic]) == [fast, slow]
    assert front([]) == []


def test_time_is_calibration_and_training_and_a_mean_over_seeds():
    runs = [timed("QAD", 10.0, 50.0, 45.0), timed("QAD", 20.0, 60.0, 47.0, seed=1), timed("MinMax", 3.0, None, 40.0)]
    unknown = record("LSQ", 4, 31.0, fidelity=44.0, seconds={})
    rows = rows_of([record("FP"), *runs, unknown], PublishedResults.load())
    assert spent(rows) == [Spent("QAD", 70.0, 46.0), Spent("MinMax", 3.0, 40.0)]


def test_equal_rows_make_equal_figures_that_name_every_method(tmp_path):
    rows = rows_of(
        [record("FP"), timed("QAD", 10.0, 50.0, 45.0), timed("MinMax", 3.0, None, 40.0)], PublishedResults.load()
    )
    for name in ("first", "second"):
        draw_time(rows, "Set5", tmp_path / f"{name}.svg")
    text = (tmp_path / "first.svg").read_text()
    assert text == (tmp_path / "second.svg").read_text()
    ElementTree.fromstring(text)
    assert "<!-- QAD -->" in text and "<!-- MinMax -->" in text and "minutes of calibration and training" in text


def test_names_of_points_that_lie_close_together_do_not_cover_each_other(monkeypatch):
    pytest.importorskip("matplotlib")
    boxes = []

    def look(figure, _file):
        figure.draw_without_rendering()
        boxes.extend(text.get_window_extent() for text in figure.axes[0].texts)

    monkeypatch.setattr(time_plot, "save_figure", look)
    close = [timed(method, 10.0, 50.0, 45.0 + 0.02 * i) for i, method in enumerate(("QAD", "ODM", "LSQ", "QDrop"))]
    rows = rows_of([record("FP"), *close, timed("MinMax", 3.0, None, 30.0)], PublishedResults.load())
    draw_time(rows, "Set5", Path("unused.svg"))
    assert len(boxes) == 5
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
