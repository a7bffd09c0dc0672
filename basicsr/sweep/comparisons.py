"""What the tables of a sweep say about single questions: which search or selection is better, and whether methods are in order."""

import statistics
from collections.abc import Sequence
from typing import Any

from basicsr.metrics.base import MetricTraits
from basicsr.sweep.rows import Row, metrics_of
from basicsr.sweep.tables import ABSENT
from basicsr.utils.markdown import markdown_table

Group = dict[str, list[Row]]


def variants(rows: Sequence[Row], calibrator: str, searches: Sequence[str]) -> str | None:
    """Compare searches or selections of one calibrator at equal network, bits and dataset, without training.

    Args:
        rows: those of a sweep, see rows.py.
        calibrator: type of the calibrator of the activations.
        searches: its `search` or `selection`; the first one is what the others are compared with.

    Returns:
        Markdown: one line for each bit width and variant, and sentences that count; None where there is nothing to compare.
        The error is the geometric mean over the activation quantizers of the squared error, in percent of that of the first.
    """
    own = [row for row in rows if row["activation_calibrator"] == calibrator and not row["iterations"]]
    datasets = list(dict.fromkeys(row["dataset"] for row in own))
    metrics = _compared(rows)
    labels = " / ".join(traits.label for traits in metrics.values())
    head = ["network", "W/A", "method", "squared error (%)"]
    lines, wins = [[*head, *(f"{name}: {labels}" for name in datasets)]], _Wins(metrics)
    for (arch, scale, w_bits, a_bits), group in _by_search(own).items():
        if searches[0] not in group or len(group) == 1:
            continue
        first = group[searches[0]]
        for search in (search for search in searches if search in group):
            members = group[search]
            error = _error_in_percent(members, first)
            cells = [f"{arch} x{scale}", f"{w_bits}/{a_bits}", members[0]["method"]]
            cells.append(ABSENT if error is None else f"{error:.1f}")
            lines.append(cells + [_difference(members, first, dataset, metrics) for dataset in datasets])
            if members is not first:
                wins.add(members, first, error, datasets)
    if len(lines) == 1:
        return None
    return markdown_table(lines) + "\n\n" + wins.sentences()


def _compared(rows: Sequence[Row]) -> dict[str, MetricTraits]:
    """Return the metrics that methods are compared in."""
    return {name: traits for name, traits in metrics_of(rows).items() if traits.in_plots}


def _by_search(rows: Sequence[Row]) -> dict[tuple[Any, ...], Group]:
    """Return rows by network and bits, and there by search, all datasets and seeds together."""
    groups: dict[tuple[Any, ...], Group] = {}
    for row in rows:
        place = (row["arch"], row["scale"], row["w_bits"], row["a_bits"])
        groups.setdefault(place, {}).setdefault(row["activation_search"], []).append(row)
    return groups


def _error_in_percent(members: Sequence[Row], first: Sequence[Row]) -> float | None:
    error, reference = _mean(members, "activations_error"), _mean(first, "activations_error")
    return 100 * error / reference if error and reference else None


def _difference(members: Sequence[Row], first: Sequence[Row], dataset: str, metrics: dict[str, MetricTraits]) -> str:
    texts, changes = [], []
    for metric, traits in metrics.items():
        digits = traits.decimals
        value, reference = (_mean_value(rows, metric, dataset) for rows in (members, first))
        texts.append(ABSENT if value is None else f"{value:.{digits}f}")
        changes.append(ABSENT if value is None or reference is None else f"{value - reference:+.{digits}f}")
    return " / ".join(texts) + ("" if members is first else f" ({' / '.join(changes)})")


class _Wins:
    """Counts, for each method, where it is better than the one that it is compared with."""

    def __init__(self, metrics: dict[str, MetricTraits]) -> None:
        self._metrics = metrics
        self._counts: dict[tuple[str, str], dict[str, list[bool]]] = {}

    def add(self, members: Sequence[Row], first: Sequence[Row], error: float | None, datasets: Sequence[str]) -> None:
        """Count one network and bit width."""
        pair = (members[0]["method"], first[0]["method"])
        names = {name: f"{'higher' if t.higher_is_better else 'lower'} {t.label}" for name, t in self._metrics.items()}
        counts = self._counts.setdefault(pair, {"smaller squared error": [], **{name: [] for name in names.values()}})
        if error is not None:
            counts["smaller squared error"].append(error < 100)
        for metric, traits in self._metrics.items():
            for dataset in datasets:
                value, reference = (_mean_value(rows, metric, dataset) for rows in (members, first))
                if value is not None and reference is not None:
                    counts[names[metric]].append(traits.is_better(value, reference))

    def sentences(self) -> str:
        """Return one sentence for each method."""
        return "".join(
            f"{method} against {first}: "
            + ", ".join(f"{name} in {sum(held)} of {len(held)}" for name, held in counts.items() if held)
            + ".\n"
            for (method, first), counts in self._counts.items()
        )


def order(rows: Sequence[Row]) -> str | None:
    """State at each network, bit width and dataset whether MinMax < DOBI < 2DQuant, as in the table of 2DQuant's paper.

    DOBI is the one that 2DQuant starts from: with the same search of the activations, and without training.

    Args:
        rows: those of a sweep, see rows.py.

    Returns:
        Markdown: a table, and sentences that count; None where a sweep has not all three.
    """
    metrics = _compared(rows)
    labels = [traits.label for traits in metrics.values()]
    lines = [["network", "W/A", "dataset", "methods", *labels, "correlation"]]
    held: dict[str, list[bool]] = {label: [] for label in labels}
    places = dict.fromkeys((r["arch"], r["scale"], r["w_bits"], r["a_bits"], r["dataset"]) for r in rows)
    for place in places:
        arch, scale, w_bits, a_bits, dataset = place
        own = [r for r in rows if (r["arch"], r["scale"], r["w_bits"], r["a_bits"], r["dataset"]) == place]
        for chain in _chains(own):
            cells = [f"{arch} x{scale}", f"{w_bits}/{a_bits}", dataset, " < ".join(m[0]["method"] for m in chain)]
            for metric, traits in metrics.items():
                values = [_mean_value(members, metric) for members in chain]
                known = [value for value in values if value is not None]
                if len(known) < len(values):
                    cells.append(ABSENT)
                    continue
                holds = traits.is_better(known[1], known[0]) and traits.is_better(known[2], known[1])
                held[traits.label].append(holds)
                shown = ", ".join(f"{value:.{traits.decimals + 1}f}" for value in known)
                cells.append(f"{'yes' if holds else 'no'}: {shown}")
            correlations = [_mean(members, "error_correlation") for members in chain]
            cells.append(ABSENT if None in correlations else ", ".join(f"{value:+.3f}" for value in correlations))
            lines.append(cells)
    if len(lines) == 1:
        return None
    counts = (f"in {name} in {sum(values)} of {len(values)} lines" for name, values in held.items() if values)
    return markdown_table(lines) + f"\n\nThe order holds {', '.join(counts)}.\n"


def _chains(rows: Sequence[Row]) -> list[tuple[list[Row], list[Row], list[Row]]]:
    """Return MinMax, DOBI and 2DQuant for each recipe of 2DQuant among the rows of one place; each with all its seeds."""
    methods: Group = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    named = {label: members for label, members in methods.items() if members[0]["published"] == "2DQuant"}
    minmax = next((members for members in methods.values() if members[0]["published"] == "MinMax"), None)
    chains = []
    for trained in named.values():
        start = next((members for members in methods.values() if _is_start(members[0], trained[0])), None)
        if minmax and start:
            chains.append((minmax, start, trained))
    return chains


def _is_start(row: Row, trained: Row) -> bool:
    keys = ("activation_calibrator", "activation_search")
    return not row["iterations"] and row["activation_calibrator"] == "DOBI" and all(row[k] == trained[k] for k in keys)


def _mean(rows: Sequence[Row], key: str) -> float | None:
    """Return the mean over seeds of what is known; None where nothing is."""
    values = [row[key] for row in rows if row[key] is not None]
    return statistics.fmean(values) if values else None


def _mean_value(rows: Sequence[Row], metric: str, dataset: str | None = None) -> float | None:
    """Return the mean of a metric over seeds, on one dataset where it is named, of what is known; None where nothing is."""
    values = [row["values"].get(metric) for row in rows if dataset in (None, row["dataset"])]
    values = [value for value in values if value is not None]
    return statistics.fmean(values) if values else None
