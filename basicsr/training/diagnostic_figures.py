"""The figures of `diagnostics.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import atomic_path

_LAYERS_SHOWN = 4


def draw_records(records: Mapping[str, Any], path: Path) -> None:
    """Draw cosine and conflicts, mismatch, and what quantizers have learned, over the iterations.

    Args:
        records: see `Diagnostics`.
        path: the PNG file.

    Raises:
        CheckpointError: it cannot be written.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2).flat
    iterations = records["iterations"]
    agreement, mismatch, activations, weights = axes
    agreement.plot(iterations, records["cosine"], label="cosine of the two gradients")
    agreement.plot(iterations, records["conflict"], label="share of parameters in conflict")
    agreement.axhline(0, color="grey", linewidth=0.5)
    agreement.set_title("Main loss and mismatch")
    agreement.legend()
    _plot_all(mismatch, iterations, records["mismatch"], "Mismatch ||X - q(X)|| of each activation quantizer")
    mismatch.set_yscale("log")
    of_weights = {name: values for name, values in records["learned"].items() if ".weight_quantizer." in name}
    of_activations = {name: values for name, values in records["learned"].items() if name not in of_weights}
    _plot_all(activations, iterations, of_activations, "Learned by activation quantizers")
    _plot_all(weights, iterations, of_weights, "Learned by weight quantizers")
    for axis in (agreement, mismatch, activations, weights):
        axis.set_xlabel("iteration")
    _save(figure, path)


def draw_activations(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> None:
    """Draw the distribution of activations, and what their quantizers can give, before and after training.

    Args:
        before: histograms, see `activation_histograms`; at most four, evenly spread over the network, are drawn.
        after: as `before`.
        path: the PNG file.

    Raises:
        CheckpointError: it cannot be written.
    """
    names = list(before)
    shown = [names[i * len(names) // min(len(names), _LAYERS_SHOWN)] for i in range(min(len(names), _LAYERS_SHOWN))]
    figure = Figure(figsize=(12, 2.2 * len(shown)), layout="constrained")
    for row, name in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        for axis, histogram, when in zip(row, (before[name], after[name]), ("before", "after"), strict=True):
            low, high = histogram["range"]
            axis.stairs(histogram["counts"], _edges(low, high, len(histogram["counts"])), fill=True)
            for bound in histogram["bounds"]:
                axis.axvline(bound, color="red")
            axis.set_yscale("log")
            axis.minorticks_off()
            axis.set_title(f"{name}, {when}", fontsize=8)
    _save(figure, path)


def _plot_all(axis: Axes, iterations: list[int], histories: Mapping[str, list[float]], title: str) -> None:
    for values in histories.values():
        axis.plot(iterations, values, linewidth=0.8)
    axis.set_title(title)


def _edges(low: float, high: float, bins: int) -> list[float]:
    return [low + (high - low) * i / bins for i in range(bins + 1)]


def _save(figure: Figure, path: Path) -> None:
    with explained(CheckpointError, f"'{path}' could not be written"), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
