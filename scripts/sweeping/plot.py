"""PSNR and fidelity against bits, one row of panels for each architecture and scale."""

import importlib.util
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_path
from sweeping.plan import BICUBIC, FULL_PRECISION
from sweeping.rows import Row

# Okabe and Ito's palette, which readers with any kind of colour vision tell apart; markers for more methods than colours
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = "osD^vPX*<>"
LINE = {"linewidth": 1.1, "markersize": 7.5, "markeredgecolor": "white", "markeredgewidth": 0.4, "elinewidth": 1.1}
DODGE = 0.03
"""Distance on the axis of bits between two methods, so that equal values do not hide each other."""
PANELS = {"psnr": "PSNR (dB)", "fidelity": "fidelity to FP (dB)"}


def require_matplotlib() -> None:
    """Raise an OptionsError if matplotlib is not installed; it is not imported, which takes a second."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionsError(
            "The plots of a sweep need matplotlib: pip install matplotlib, or pip install -e '.[sweep]' in the repository."
        )


def draw(rows: Sequence[Row], dataset: str, file: Path) -> None:
    """Draw PSNR and fidelity on a dataset against bits, one curve for each method.

    Args:
        rows: see rows.py; those of other datasets are passed over.
        dataset: name of the dataset.
        file: the PNG to write.

    Raises:
        OptionsError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    own = [row for row in rows if row["dataset"] == dataset]
    networks = list(dict.fromkeys((row["arch"], row["scale"]) for row in own if row["method"] != BICUBIC))
    methods = list(dict.fromkeys(row["method"] for row in own if row["method"] not in (FULL_PRECISION, BICUBIC)))
    styles = {
        method: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        for i, method in enumerate(methods)
    }
    size = (10.5, 0.6 + 3.2 * len(networks))
    figure, panels = pyplot.subplots(len(networks), len(PANELS), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
    for line, (arch, scale) in enumerate(networks):
        shown = [row for row in own if row["scale"] == scale and row["arch"] in (arch, None)]
        for panel, (metric, label) in zip(panels[line], PANELS.items(), strict=True):
            _panel(panel, shown, metric, styles)
            panel.set_title(f"{arch} x{scale}, {dataset}", fontsize=10)
            panel.set_ylabel(label)
            panel.set_xlabel("bits of weights and activations")
    entries = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    ordered = [name for name in (FULL_PRECISION, *methods, BICUBIC) if name in entries]
    figure.legend([entries[name] for name in ordered], ordered, loc="outside right center", frameon=False)
    with atomic_path(file) as temporary:
        # without a date and a version in the file, equal rows make equal files
        figure.savefig(temporary, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def _panel(panel: Any, rows: Sequence[Row], metric: str, styles: dict[str, dict[str, str]]) -> None:
    widths = sorted({(row["w_bits"], row["a_bits"]) for row in rows if row["method"] in styles})
    labels = [str(w) if w == a else f"{w}/{a}" for w, a in widths]
    for number, (method, style) in enumerate(styles.items()):
        shift = DODGE * (number - (len(styles) - 1) / 2)
        points = []
        for position, bits in enumerate(widths):
            chosen = [r[metric] for r in rows if r["method"] == method and (r["w_bits"], r["a_bits"]) == bits]
            values = [value for value in chosen if value is not None]
            if values:
                points.append(
                    (position + shift, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
                )
        if points:
            positions, means, spreads = zip(*points, strict=True)
            panel.errorbar(positions, means, spreads, label=method, **LINE, **style)
    if metric == "psnr":
        for method, dashes in ((FULL_PRECISION, "--"), (BICUBIC, ":")):
            for row in rows:
                if row["method"] == method:
                    panel.axhline(row["psnr"], color="#555555", linestyle=dashes, linewidth=1.2, label=method)
    panel.set_xticks(range(len(widths)), labels)
    panel.set_xlim(-0.4, len(widths) - 0.6)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
