"""What a method reaches against the time that it takes: the Pareto front of accuracy and minutes."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from basicsr.sweep.plan import BICUBIC, FULL_PRECISION
from basicsr.sweep.plot import COLOURS, save_figure
from basicsr.sweep.rows import Row

METRIC = "fidelity"
_WIDTH, _HEIGHT = 6.5, 4.2  # inches of a panel
_ON_FRONT, _BEHIND = COLOURS[0], "#888888"
_DOT = 3  # pixels from the centre of a point to its edge
_PLACES = (
    (7, 0, "left"),
    (-7, 0, "right"),
    (4, 9, "left"),
    (4, -9, "left"),
    (-4, 9, "right"),
    (-4, -9, "right"),
)
"""Where a name may stand beside its point, in points, best first; the first one is taken where all are covered."""


class Spent(NamedTuple):
    """A method with the seconds of its calibration and training, and what it reached; means over seeds."""

    method: str
    seconds: float
    value: float
    dynamic: bool = False  # its ranges follow each picture, which costs time at inference


def front(points: Sequence[Spent]) -> list[Spent]:
    """Return the methods with static ranges that no other one of these beats in less time or equal time, the fastest first."""
    best: list[Spent] = []
    for point in sorted((p for p in points if not p.dynamic), key=lambda p: (p.seconds, -p.value)):
        if not best or point.value > best[-1].value:
            best.append(point)
    return best


def spent(rows: Sequence[Row]) -> list[Spent]:
    """Return a point for each method of rows of one network, dataset and number of bits; without those whose time is not known."""
    points = []
    for method in dict.fromkeys(row["method"] for row in rows if row["method"] not in (BICUBIC, FULL_PRECISION)):
        own = [row for row in rows if row["method"] == method and row["calibration_seconds"] is not None]
        values = [row["values"][METRIC] for row in own if row["values"].get(METRIC) is not None]
        if values:
            seconds = fmean(row["calibration_seconds"] + (row["training_seconds"] or 0) for row in own)
            points.append(Spent(method, seconds, fmean(values), own[0]["activation_ranges"] == "dynamic"))
    return points


def draw_time(rows: Sequence[Row], dataset: str, file: Path) -> None:
    """Draw fidelity against minutes, a row of panels for each network and one panel for each number of bits.

    Methods on the front, that no other one beats in less time, are joined by a line. Those with dynamic ranges are hollow, and not on it.

    Args:
        rows: see rows.py; those of other datasets are passed over.
        dataset: name of the dataset.
        file: the SVG to write.
    """
    import matplotlib  # takes a second, which sweeps without plots do not wait for

    matplotlib.use("Agg")
    from matplotlib import pyplot

    own = [row for row in rows if row["dataset"] == dataset and row["coverage"]]
    networks = list(dict.fromkeys((row["arch"], row["scale"]) for row in own))
    widths = sorted({(row["w_bits"], row["a_bits"]) for row in own}, reverse=True)
    size = (_WIDTH * len(widths), _HEIGHT * len(networks))
    figure, panels = pyplot.subplots(len(networks), len(widths), figsize=size, squeeze=False, layout="constrained")
    named = []
    for line, (arch, scale) in enumerate(networks):
        for panel, (w_bits, a_bits) in zip(panels[line], widths, strict=True):
            place = (arch, scale, w_bits, a_bits)
            shown = [row for row in own if (row["arch"], row["scale"], row["w_bits"], row["a_bits"]) == place]
            points = spent(shown)
            _panel(panel, points)
            bits = str(w_bits) if w_bits == a_bits else f"{w_bits}/{a_bits}"
            panel.set_title(f"{arch} x{scale}, {dataset}, {bits} bits", fontsize=10)
            named.append((panel, points))
    figure.draw_without_rendering()
    for panel, points in named:
        _name_points(panel, points)
    save_figure(figure, file)
    pyplot.close(figure)


def _panel(panel: Any, points: Sequence[Spent]) -> None:
    on_front = front(points)
    panel.plot([p.seconds / 60 for p in on_front], [p.value for p in on_front], color=_ON_FRONT, linewidth=0.9)
    for point in points:
        colour = _ON_FRONT if point in on_front else _BEHIND
        inside = "none" if point.dynamic else colour
        panel.plot(point.seconds / 60, point.value, "o", color=colour, markerfacecolor=inside, markersize=5)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.margins(x=0.18, y=0.08)
    panel.set_xlabel("minutes of calibration and training (hollow: dynamic ranges)")
    panel.set_ylabel("fidelity to FP (dB)")
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _name_points(panel: Any, points: Sequence[Spent]) -> None:
    """Write each name beside its point, where it covers no other name and no point; those on the front choose first.

    To be called when the layout is done, since it looks at pixels.
    """
    from matplotlib.transforms import Bbox

    on_front = front(points)
    centres = panel.transData.transform([(p.seconds / 60, p.value) for p in points]) if points else []
    taken = [Bbox.from_extents(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in centres]
    for point in sorted(points, key=lambda p: p not in on_front):
        colour = _ON_FRONT if point in on_front else _BEHIND
        where = (point.seconds / 60, point.value)
        text = panel.annotate(
            point.method, where, (0, 0), textcoords="offset points", va="center", fontsize=8, color=colour
        )
        for x, y, side in (*_PLACES, _PLACES[0]):
            text.set(position=(x, y), horizontalalignment=side)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
