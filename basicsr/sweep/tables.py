"""Rows as Markdown: a table for each architecture and scale, best values in bold, beside the published change from full precision."""

import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

from basicsr.metrics.base import MetricTraits
from basicsr.sweep.plan import BICUBIC, FULL_PRECISION
from basicsr.sweep.rows import Row, metrics_of
from basicsr.utils.markdown import markdown_table

SECONDS = {"calibration_seconds": "calibration (s)", "training_seconds": "training (s)"}
ABSENT = "-"
WIDTH = 120
EXPLANATION = (
    'Cells hold {metrics}. {remarks}The best of each bit width is **bold**. "Change" is PSNR less that of FP. {published}Ranges '
    "are static and per tensor unless stated; dynamic ones are found anew for each image. Networks are those of the last "
    "iteration. {protocol}"
)
FIDELITY = "Fidelity is the PSNR of the quantized network's output against that of the full-precision (FP) network. "
PUBLISHED = (
    "In parentheses is the change that was published, from the FP network of that publication. It stands where the network, "
    "the bits and the protocol are the same. "
)


def markdown(title: str, rows: Sequence[Row], missing: Sequence[str]) -> str:
    """Return the tables of a sweep.

    Args:
        title: heading of the text.
        rows: see rows.py; methods and bits are shown in their order.
        missing: names of the runs that are not finished.

    Returns:
        Markdown; rows with several seeds are shown as mean and standard deviation.
    """
    text = [f"# {title}\n", explanation(rows)]
    if missing:
        text.append("\n".join(["Not finished:\n", *(f"- {name}" for name in missing)]) + "\n")
    for arch, scale in networks_of(rows):
        text += [f"## {arch} x{scale}\n", network_table(rows, arch, scale, with_seconds=True)]
    return "\n".join(text)


def networks_of(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Return the architectures and scales of rows, in their order."""
    return list(dict.fromkeys((row["arch"], row["scale"]) for row in rows if row["method"] != BICUBIC))


def network_table(rows: Sequence[Row], arch: str, scale: int, with_seconds: bool) -> str:
    """Return the table of one architecture and scale, and the notes below it, as Markdown.

    Args:
        rows: those of a sweep.
        arch: label of the architecture.
        scale: scale factor.
        with_seconds: whether columns say how long calibration and training took.
    """
    own = [row for row in rows if row["scale"] == scale and row["arch"] in (arch, None)]
    return "\n".join([_table(own, with_seconds), *_notes(own)])


def explanation(rows: Sequence[Row]) -> str:
    """Return a paragraph that says what the cells of tables hold and how it was measured."""
    measured = sorted({(row["on_y"], row["crop_border"], row["self_ensemble"]) for row in rows}, key=str)
    published = PUBLISHED if any(row["published_psnr_change"] is not None for row in rows) else ""
    protocol = " ".join(_protocol(*protocol) for protocol in measured)
    metrics = metrics_of(rows)
    headings = " / ".join(traits.heading for traits in metrics.values())
    text = EXPLANATION.format(metrics=headings, remarks=_remarks(metrics), published=published, protocol=protocol)
    return textwrap.fill(text, WIDTH, break_on_hyphens=False) + "\n"


def _remarks(metrics: dict[str, MetricTraits]) -> str:
    """Return sentences on what is not plain from the names of metrics."""
    lower = [traits.label for traits in metrics.values() if not traits.higher_is_better]
    return (FIDELITY if "fidelity" in metrics else "") + (f"Less is better of {' and '.join(lower)}. " if lower else "")


def _protocol(on_y: bool, border: int | None, ensemble: bool) -> str:
    channel = "the Y channel" if on_y else "RGB"
    pixels = "as wide as the scale factor" if border is None else f"of {border} pixels"
    return f"Measured on {channel}, leaving out a border {pixels}{', with self-ensemble' if ensemble else ''}."


def _table(rows: Sequence[Row], with_seconds: bool) -> str:
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["method"] != BICUBIC, row["method"] != FULL_PRECISION)):
        groups.setdefault((row["w_bits"], row["a_bits"], row["method"]), []).append(row)
    metrics = metrics_of(rows)
    best = _best(groups, datasets, metrics)
    head = ["method", "W/A"]
    for dataset in datasets:
        head += [dataset, "change"]
    head += ["activations", "iterations x batch", *(SECONDS.values() if with_seconds else ())]
    lines = [head]
    for (w_bits, a_bits, method), members in groups.items():
        cells = [method, f"{w_bits}/{a_bits}"]
        for dataset in datasets:
            own = [row for row in members if row["dataset"] == dataset]
            cells += [_values(own, best, metrics), _change(own)]
        cells += [_ranges(members[0]), _iterations(members[0])]
        lines.append(cells + [_mean(members, key, 1) for key in SECONDS if with_seconds])
    return markdown_table(lines) + "\n"


def _best(
    groups: dict[tuple[Any, ...], list[Row]], datasets: Sequence[str], metrics: dict[str, MetricTraits]
) -> dict[tuple[Any, ...], str]:
    """Return, for bits, dataset and metric, the best mean as it is shown; a bit width with one method has no best."""
    best = {}
    for bits in {key[:2] for key in groups}:
        methods = [
            members for key, members in groups.items() if key[:2] == bits and key[2] not in (FULL_PRECISION, BICUBIC)
        ]
        for dataset in datasets:
            for metric, traits in metrics.items():
                own = [[row for row in members if row["dataset"] == dataset] for members in methods]
                texts = [_mean_text(_known(rows, metric), traits.decimals) for rows in own]
                means = [float(text) for text in texts if text != ABSENT]
                if len(means) > 1:
                    best[(*bits, dataset, metric)] = f"{traits.best(means):.{traits.decimals}f}"
    return best


def _values(rows: Sequence[Row], best: dict[tuple[Any, ...], str], metrics: dict[str, MetricTraits]) -> str:
    if not rows:
        return ABSENT
    cells = []
    for metric, traits in metrics.items():
        values = _known(rows, metric)
        text = _mean_text(values, traits.decimals)
        place = (rows[0]["w_bits"], rows[0]["a_bits"], rows[0]["dataset"], metric)
        spread = f" ± {statistics.stdev(values):.{traits.decimals}f}" if len(values) > 1 else ""
        cells.append(f"**{text}**{spread}" if best.get(place) == text else f"{text}{spread}")
    return " / ".join(cells)


def _change(rows: Sequence[Row]) -> str:
    text = _mean(rows, "psnr_change", 3, "+")
    published = rows[0]["published_psnr_change"] if rows else None
    return text if published is None else f"{text} ({published:+.2f})"


def _known(rows: Sequence[Row], metric: str) -> list[float]:
    """Return the values of a metric that rows have."""
    return [row["values"][metric] for row in rows if row["values"].get(metric) is not None]


def _mean(rows: Sequence[Row], key: str, digits: int, sign: str = "") -> str:
    """Return the mean over seeds (or over runs, where a value belongs to a run) of what is known, as text."""
    return _mean_text([row[key] for row in rows if row[key] is not None], digits, sign)


def _mean_text(values: Sequence[float], digits: int, sign: str = "") -> str:
    return f"{statistics.fmean(values):{sign}.{digits}f}" if values else ABSENT


def _ranges(row: Row) -> str:
    if row["activation_ranges"] is None:
        return ABSENT
    text = row["activation_ranges"] + (" per channel" if row["activation_granularity"] == "per_channel" else "")
    return text + ("; weights per channel" if row["weight_granularity"] == "per_channel" else "")


def _iterations(row: Row) -> str:
    return f"{row['iterations']} x {row['batch_size']}" if row["iterations"] else ABSENT


def _notes(rows: Sequence[Row]) -> list[str]:
    """Return what is to be said below a table: coverage, share of the iterations, seeds, sources of what was published."""
    coverage = sorted({row["coverage"] for row in rows if row["coverage"]})
    notes = [f"Coverage: {', '.join(f'`{name}`' for name in coverage)}."] if coverage else []
    if len(coverage) > 1:
        methods = dict.fromkeys((row["coverage"], row["method"]) for row in rows if row["coverage"])
        notes = [f"Coverage: {', '.join(f'`{name}` for {method}' for name, method in methods)}."]
    shares = sorted({row["share"] for row in rows if row["share"] is not None and row["share"] < 1})
    if shares:
        notes.append(f"Iterations are {' and '.join(f'{share:.3g}' for share in shares)} of those of the full recipe.")
    seeds = _repeated_seeds(rows)
    if seeds:
        notes.append(f"Mean ± standard deviation over the seeds {seeds}.")
    sources = sorted({row["published_source"] for row in rows if row["published_psnr_change"] is not None})
    if sources:
        notes.append(f"Published: {'; '.join(sources)}.")
    return [" ".join(notes) + "\n"] if notes else []


def _repeated_seeds(rows: Sequence[Row]) -> str | None:
    """Return the seeds of the cells that are means over several, and the means that have not all of them; None where there is no mean.

    Recipes may have different seeds, which is no repetition.
    """
    cells: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        if row["seed"] is not None and row["coverage"]:
            cells.setdefault((row["method"], f"{row['w_bits']}/{row['a_bits']}"), set()).add(row["seed"])
    repeated = set().union(*(seeds for seeds in cells.values() if len(seeds) > 1))
    if not repeated:
        return None
    fewer = {cell: own for cell, own in cells.items() if len(own) > 1 and own != repeated}
    exceptions = "; ".join(
        f"{method} {bits}: {', '.join(map(str, sorted(own)))}" for (method, bits), own in fewer.items()
    )
    return ", ".join(map(str, sorted(repeated))) + (f" (fewer have {exceptions})" if fewer else "")
