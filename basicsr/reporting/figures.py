"""The figures of the page: metrics against bits, losses and validation over the iterations, activations with bounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TypeGuard

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from basicsr.reporting.activations import Layer
from basicsr.reporting.entries import FULL_PRECISION, Training
from basicsr.reporting.svg import AREA, COLOURS, FAINT, INK, MARKERS, inline_svg, panel
from basicsr.reporting.tables import Group, Row

_MOST_VALUES = 400
"""Points of a curve that are drawn; of more, evenly spaced ones."""
_LONGEST_LABEL = 26


@dataclass(frozen=True)
class Style:
    """How a method looks in all figures of a page: colour number, marker of matplotlib, and its character in legends."""

    number: int
    marker: str

    @property
    def colour(self) -> str:
        """Colour for matplotlib, which becomes a variable of the page."""
        return COLOURS[self.number]

    @property
    def sign(self) -> str:
        """The marker as a character."""
        return MARKERS[self.marker]


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each name; colours begin anew with another marker once all are used."""
    markers = list(MARKERS)
    return {
        name: Style(index % len(COLOURS), markers[(index + index // len(COLOURS)) % len(markers)])
        for index, name in enumerate(dict.fromkeys(names))
    }


def metric_figures(group: Group, styles: Mapping[str, Style]) -> list[str]:
    """Return a figure for each metric of a group: against bits, or where all have the same, as one line for each method.

    Args:
        group: rows on one dataset.
        styles: by the label of the method, see `style_name`.
    """
    quantized = [row for row in group.rows if row.entry.quantized]
    bits = sorted({(row.entry.w_bits, row.entry.a_bits) for row in quantized}, key=lambda pair: (sum(pair), pair))
    figures = []
    for metric in group.metrics:
        drawn = [row for row in quantized if _is_finite(row.values.get(metric))]
        if drawn:
            draw = _against_bits if len(bits) > 1 else _ranking
            figures.append(draw(group, metric, drawn, bits, styles))
    return figures


def style_name(row: Row) -> str:
    """Return what a row shares its colour by: the method, whatever its bits."""
    return row.entry.method


def _full_precision_value(group: Group, metric: str) -> float | None:
    value = None if group.full_precision is None else group.full_precision.values.get(metric)
    return value if _is_finite(value) else None


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _against_bits(
    group: Group, metric: str, rows: Sequence[Row], bits: Sequence[tuple[int, int]], styles: Mapping[str, Style]
) -> str:
    with panel() as (figure, axes):
        for name in dict.fromkeys(map(style_name, rows)):
            own = sorted(
                (bits.index((row.entry.w_bits, row.entry.a_bits)), row.values[metric])
                for row in rows
                if style_name(row) == name
            )
            style = styles[name]
            axes.plot(*zip(*own, strict=True), color=style.colour, marker=style.marker, markersize=5)
        full = _full_precision_value(group, metric)
        if full is not None:
            axes.axhline(full, color=INK, linewidth=0.8, linestyle="--")
            axes.annotate(
                FULL_PRECISION, (1, full), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
            )
        axes.set_xticks(range(len(bits)), [f"{w}/{a}" for w, a in bits])
        axes.margins(x=0.08)
        axes.set_xlabel("bits of weights / activations")
        axes.set_title(f"{group.heading(metric)} against bits", loc="left")
        return inline_svg(figure, f"{group.heading(metric)} against bits, {group.title}")


def _ranking(
    group: Group, metric: str, rows: Sequence[Row], bits: Sequence[tuple[int, int]], styles: Mapping[str, Style]
) -> str:
    full = _full_precision_value(group, metric)
    lines = [(FULL_PRECISION, full, INK)] if full is not None else []
    lines += [
        (row.label, value, styles[style_name(row)].colour)
        for row in rows
        if (value := row.values[metric]) is not None  # those that are given
    ]
    with panel(height=1.0 + 0.27 * len(lines)) as (figure, axes):
        places = range(len(lines) - 1, -1, -1)
        values = [value for _, value, _ in lines]
        margin = 0.06 * ((max(values) - min(values)) or 1)
        axes.hlines(places, min(values) - margin, values, color=FAINT, linewidth=1)
        for place, (_, value, colour) in zip(places, lines, strict=True):
            axes.plot(value, place, "o", color=colour, markersize=6)
            axes.annotate(
                group.text(metric, value), (value, place), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(places, [_short(label) for label, _, _ in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlim(min(values) - margin, max(values) + 4 * margin)
        axes.grid(False, axis="y")
        axes.set_title(f"{group.heading(metric)} at {bits[0][0]}/{bits[0][1]} bits", loc="left")
        return inline_svg(figure, f"{group.heading(metric)} of each method, {group.title}")


def _short(label: str) -> str:
    """Return a label that leaves room for what stands beside it; the table has it whole."""
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def loss_figure(training: Training) -> str | None:
    """Return the losses of a training over its iterations; None where it left none."""
    names = list(dict.fromkeys(name for line in training.losses for name in line["losses"]))
    if not names:
        return None
    styles = styles_of(names)
    with panel() as (figure, axes):
        lowest = min(line["losses"][name] for line in training.losses for name in names if name in line["losses"])
        for name in names:
            points = [(line["iter"], line["losses"][name]) for line in training.losses if name in line["losses"]]
            _curve(axes, points, name, styles[name])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if lowest > 0:
            axes.set_yscale("log")
        axes.set_xlabel("iteration")
        axes.set_title("Losses", loc="left")
        _legend(axes, len(names))
        return inline_svg(figure, f"Losses of {training.folder.name} over the iterations")


def validation_figure(training: Training, metric: str, heading: str) -> str | None:
    """Return a metric on the validation sets over the iterations; None where it was measured less than twice."""
    lines = [
        line for line in training.history if line["stage"] in ("calibrated", "train") and line.get(metric) is not None
    ]
    datasets = [
        name
        for name in dict.fromkeys(line["dataset"] for line in lines)
        if len({line["iter"] for line in lines if line["dataset"] == name}) > 1
    ]
    if not datasets:
        return None
    styles = styles_of(datasets)
    with panel() as (figure, axes):
        for name in datasets:
            points = {line["iter"]: line[metric] for line in lines if line["dataset"] == name}
            _curve(axes, sorted(points.items()), name, styles[name])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("iteration")
        axes.set_title(f"{heading} in training", loc="left")
        _legend(axes, len(datasets))
        return inline_svg(figure, f"{heading} of {training.folder.name} over the iterations")


def _curve(axes: Axes, points: Sequence[tuple[float, float]], label: str, style: Style) -> None:
    step = -(-len(points) // _MOST_VALUES)
    shown = list(islice(points, 0, None, step))
    marker = style.marker if len(shown) <= 30 else ""
    # matplotlib leaves labels that begin with an underscore out of legends
    axes.plot(
        *zip(*shown, strict=True), color=style.colour, marker=marker, markersize=3.5, label=label.lstrip("_") or "loss"
    )


def _legend(axes: Axes, lines: int) -> None:
    axes.legend(frameon=False, fontsize=8, ncols=2 if lines > 4 else 1)


def layer_figure(layer: Layer, styles: Mapping[str, Style]) -> str:
    """Return the distribution of one layer's input in full precision, with the bounds of each method.

    Args:
        layer: see `activations.py`.
        styles: by the label of the method.
    """
    with panel(height=2.3) as (figure, axes):
        low, high = layer.range
        counts = layer.counts
        edges = [low + (high - low) * i / len(counts) for i in range(len(counts) + 1)]
        axes.stairs(counts, edges, fill=True, color=AREA)
        for (method, seen), dashes in zip(layer.seen.items(), cycle(["-", (0, (5, 1.5)), (0, (2, 1.2))])):
            style = styles[method]
            if seen.counts is not None:
                axes.stairs(seen.counts, edges, color=style.colour, linewidth=0.9)
            for bound in seen.outermost:
                axes.axvline(bound, color=style.colour, linewidth=1.6, linestyle=":" if seen.dynamic else dashes)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([])
        axes.minorticks_off()
        axes.spines["left"].set_visible(False)
        axes.grid(False)
        return inline_svg(figure, f"Distribution of the input of {layer.name}, with the bounds of each method")
