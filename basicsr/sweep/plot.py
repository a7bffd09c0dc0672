"""Metrics such as PSNR and fidelity against bits, one row of panels for each architecture and scale."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basicsr.metrics.base import MetricTraits
from basicsr.sweep.plan import BICUBIC, FULL_PRECISION
from basicsr.sweep.rows import Row, metrics_of
from basicsr.utils.files import atomic_path

# Okabe and Ito's palette, which readers with any kind of colour vision tell apart; markers for more methods than colours
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = "osD^vPX*<>"
LINE = {"linewidth": 0.9, "markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.4, "elinewidth": 1.1}
DODGE, SPREAD = 0.05, 0.75
"""Distance on the axis of bits between two methods, and between the first and the last at most: equal values do not hide each other."""
FENCE = 3.0
"""Values so many interquartile ranges below the first quartile leave the panel and are written at its foot."""
LABELS = {"fidelity": "fidelity to FP (dB)"}
"""Of axes, where it is not the heading of the metric."""


def draw(rows: Sequence[Row], dataset: str, file: Path) -> None:
    """Draw the metrics that are meant for plots on a dataset against bits, one curve for each method.

    Args:
        rows: see rows.py; those of other datasets are passed over.
        dataset: name of the dataset.
        file: the SVG to write.
    """
    import matplotlib  # takes a second, which sweeps without plots do not wait for

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    own = [row for row in rows if row["dataset"] == dataset]
    networks = list(dict.fromkeys((row["arch"], row["scale"]) for row in own if row["method"] != BICUBIC))
    methods = list(dict.fromkeys(row["method"] for row in own if row["method"] not in (FULL_PRECISION, BICUBIC)))
    styles = {method: _style(number) for number, method in enumerate(methods)}
    metrics = {name: traits for name, traits in metrics_of(own).items() if traits.in_plots}
    size = (6.5 * max(len(metrics), 2), 0.6 + 4 * len(networks))
    figure, panels = pyplot.subplots(
        len(networks), len(metrics), figsize=size, squeeze=False, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.12)
    )
    for line, (arch, scale) in enumerate(networks):
        shown = [row for row in own if row["scale"] == scale and row["arch"] in (arch, None)]
        for panel, (metric, traits) in zip(panels[line], metrics.items(), strict=True):
            _panel(panel, shown, metric, traits, styles)
            panel.set_title(f"{arch} x{scale}, {dataset}", fontsize=10)
            panel.set_ylabel(LABELS.get(metric, traits.heading))
            panel.set_xlabel("bits of weights and activations")
    entries = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    ordered = [name for name in (FULL_PRECISION, *methods, BICUBIC) if name in entries]
    figure.legend([entries[name] for name in ordered], ordered, loc="outside right center", frameon=False)
    save_figure(figure, file)
    pyplot.close(figure)


def save_figure(figure: Any, file: Path) -> None:
    """Write a figure as SVG; without a date and with a constant salt of its identifiers, equal rows make equal files."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "sweep"}), atomic_path(file) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})


def _style(number: int) -> dict[str, str]:
    """Return how a method is drawn; when the colours have been used once, they come again with broken lines."""
    lines = ("-", "--", ":")[number // len(COLOURS) % 3]
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "linestyle": lines}


def _panel(
    panel: Any, rows: Sequence[Row], metric: str, traits: MetricTraits, styles: dict[str, dict[str, str]]
) -> None:
    widths = sorted({(row["w_bits"], row["a_bits"]) for row in rows if row["method"] in styles})
    labels = [str(w) if w == a else f"{w}/{a}" for w, a in widths]
    step = min(DODGE, SPREAD / max(1, len(styles) - 1))
    curves = {}
    for number, method in enumerate(styles):
        shift = step * (number - (len(styles) - 1) / 2)
        points = _points([row for row in rows if row["method"] == method], metric, widths)
        if points:
            curves[method] = [(position + shift, mean, spread) for position, mean, spread in points]
            positions, means, spreads = zip(*curves[method], strict=True)
            panel.errorbar(positions, means, spreads, label=method, **LINE, **styles[method])
    references = {}
    if traits.compares == "hr":
        for method, dashes in ((FULL_PRECISION, "--"), (BICUBIC, ":")):
            for row in rows:
                value = row["values"].get(metric)
                if row["method"] == method and value is not None:
                    references[method] = value
                    panel.axhline(value, color="#555555", linestyle=dashes, linewidth=1.2, label=method)
    panel.set_xticks(range(len(widths)), labels)
    panel.set_xlim(-0.5, max(len(widths), 1) - 0.5)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    if traits.higher_is_better:
        _cut_outliers(panel, curves, references, styles)


def _points(rows: Sequence[Row], metric: str, widths: Sequence[tuple[int, int]]) -> list[tuple[int, float, float]]:
    """Return position of the bits, mean and standard deviation over seeds, of the bits that a method has."""
    points = []
    for position, bits in enumerate(widths):
        own = [row["values"].get(metric) for row in rows if (row["w_bits"], row["a_bits"]) == bits]
        values = [value for value in own if value is not None]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            points.append((position, statistics.fmean(values), deviation))
    return points


def _cut_outliers(
    panel: Any,
    curves: dict[str, list[tuple[float, float, float]]],
    references: dict[str, float],
    styles: dict[str, dict[str, str]],
) -> None:
    """End the panel above values that are far below all others, and write these at its foot."""
    means = [mean for points in curves.values() for _, mean, _ in points]
    if len(means) < 4:
        return
    first, _, third = statistics.quantiles(means, n=4, method="inclusive")
    fence = first - FENCE * (third - first)
    kept = [value for value in (*means, *references.values()) if value >= fence]
    if len(kept) == len(means) + len(references):
        return
    height = max(kept) - min(kept)
    panel.set_ylim(min(kept) - 0.12 * height, max(kept) + 0.05 * height)
    low = [(x, mean, method) for method, points in curves.items() for x, mean, _ in points if mean < fence]
    foot = {"fontsize": 8, "transform": panel.get_xaxis_transform()}  # x in bits, y in heights of the panel
    for number, (x, mean, method) in enumerate(low):
        panel.text(x, 0.01 + 0.04 * (number % 3), f"{mean:.2f} $\\downarrow$", color=styles[method]["color"], **foot)
    for name, value in references.items():
        if value < fence:
            right = panel.get_xlim()[1]
            panel.text(right, 0.01, f"{name} {value:.2f} $\\downarrow$", color="#555555", ha="right", **foot)
