"""Entries side by side: rows in groups that compare like with like, as values, text and Markdown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from basicsr.metrics.base import MetricTraits, compares_with_hr
from basicsr.reporting.entries import Entry
from basicsr.utils.markdown import markdown_table

NOTHING, INFINITE = "–", "∞"
_DECIMALS_OF_OTHERS = 4


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        entry: what was measured.
        label: its name on the page, the only one of that name in its group.
        values: metrics by name; None where there is none, `math.inf` where one is infinite.
        ratio: bytes of the full-precision network of the group divided by those of this one; None where either is not known.
    """

    entry: Entry
    label: str
    values: Mapping[str, float | None]
    ratio: float | None

    @property
    def seconds(self) -> float | None:
        """Time of calibration and training together; None where it is not known."""
        training = self.entry.training
        return training.seconds if training is not None and self.entry.quantized else None


@dataclass(frozen=True)
class Group:
    """Rows that compare: the same network, scale, dataset, pictures and protocol.

    Attributes:
        network: name of the architecture.
        scale: scale factor.
        dataset: name of the dataset.
        protocol: options of the evaluation that change its numbers.
        pictures: names of the pictures, as far as they are known.
        metrics: names of all metrics of the rows.
        traits: what metrics state of themselves, by name; those of files that state nothing are not in it.
        rows: in the order in which they were given.
    """

    network: str
    scale: int
    dataset: str
    protocol: Mapping[str, Any]
    pictures: tuple[str, ...]
    metrics: tuple[str, ...]
    traits: Mapping[str, MetricTraits]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Heading of the group."""
        return f"{self.network} x{self.scale} on {self.dataset}"

    @property
    def full_precision(self) -> Row | None:
        """The row of the full-precision network, if there is one."""
        return next((row for row in self.rows if not row.entry.quantized), None)

    @property
    def without_hr(self) -> bool:
        """Whether the data set has LR pictures alone: rows know metrics that compare with HR, and have no value of any."""
        known = {name: traits for row in self.rows for name, traits in row.entry.traits.items()}
        return compares_with_hr(known, known) and not compares_with_hr(known, self.metrics)

    @property
    def dynamic(self) -> bool:
        """Whether a row has ranges that are computed anew for each sample."""
        return any(row.entry.dynamic for row in self.rows)

    def best(self, metric: str) -> float | None:
        """Return the best value of the quantized rows; None where there are not several, or no direction is stated."""
        values = [row.values.get(metric) for row in self.rows if row.entry.quantized]
        known = [value for value in values if value is not None]
        return self.traits[metric].best(known) if len(known) > 1 and metric in self.traits else None

    def heading(self, metric: str) -> str:
        """Return the heading of a metric with its unit, such as `PSNR (dB)`; one that states nothing keeps its name."""
        return metric_heading(self.traits, metric)

    def text(self, metric: str, value: float | None) -> str:
        """Return a value with the decimals of its metric; `–` for None, `∞` for an infinite one."""
        if value is None:
            return NOTHING
        if math.isinf(value):
            return INFINITE if value > 0 else f"-{INFINITE}"
        decimals = self.traits[metric].decimals if metric in self.traits else _DECIMALS_OF_OTHERS
        return f"{value:.{decimals}f}"

    def phrase(self, metric: str, value: float | None) -> str:
        """Return a metric with its value and unit for running text, such as `PSNR 31.18 dB`; the unit only with a value."""
        traits = self.traits.get(metric)
        unit = traits.unit if traits and value is not None else ""
        return f"{traits.label if traits else metric} {self.text(metric, value)} {unit}".rstrip()

    def gaps(self) -> list[str]:
        """Return a sentence for each mean that leaves out pictures without a value, and one where there is no HR at all."""
        sentences = (
            [f"{self.dataset} has LR pictures alone, which were enlarged: no metric compares with HR."]
            if self.without_hr
            else []
        )
        for row in self.rows:
            pictures = len(row.entry.images.get(self.dataset, ()))
            for metric, number in row.entry.counted.get(self.dataset, {}).items():
                what = f"{self.traits[metric].label if metric in self.traits else metric} of {row.label}"
                sentences.append(
                    f"{what} is the mean over {number} of {pictures} pictures; it has no value for the others."
                    if number
                    else f"{what} has no value for any of {pictures} pictures."
                )
        return sentences

    def describe_protocol(self) -> str:
        """Return how it was measured, as a sentence."""
        count = f"{len(self.pictures)} pictures" if self.pictures else "Means of the data set"
        if self.without_hr:
            return f"{count}, enlarged without HR to compare with."
        channel = "on Y" if self.protocol.get("test_y_channel", True) else "on RGB"
        border = self.protocol.get("crop_border")
        border = self.scale if border is None else border
        ensemble = ", mean over 8 flips and rotations" if self.protocol.get("self_ensemble") else ""
        return f"{count}, measured {channel}, {border} pixels left out on every side{ensemble}."


def group_entries(entries: Sequence[Entry]) -> list[Group]:
    """Return the rows of all entries in groups, in the order in which they first appear."""
    members: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        for dataset in entry.datasets:
            members.setdefault(_key(entry, dataset), []).append(entry)
    return [_group(key[2], own) for key, own in members.items()]


def _key(entry: Entry, dataset: str) -> tuple[Any, ...]:
    pictures = tuple(sorted(entry.images.get(dataset, ())))
    protocol = tuple(sorted((key, repr(value)) for key, value in entry.protocol.items()))
    return entry.network, entry.scale, dataset, entry.parameters, protocol, pictures


def _group(dataset: str, entries: Sequence[Entry]) -> Group:
    first = entries[0]
    full = next((entry.size for entry in entries if not entry.quantized and entry.size), None)
    rows = [
        Row(entry, label, entry.datasets[dataset], full / entry.size if full and entry.size else None)
        for entry, label in zip(entries, _labels(entries), strict=True)
    ]
    stated = {metric: traits for entry in reversed(entries) for metric, traits in entry.traits.items()}
    metrics = tuple(dict.fromkeys(metric for row in rows for metric in row.values))
    return Group(
        network=first.network,
        scale=first.scale,
        dataset=dataset,
        protocol=first.protocol,
        pictures=tuple(sorted(first.images.get(dataset, ()))),
        metrics=metrics,
        traits={metric: stated[metric] for metric in metrics if metric in stated},
        rows=tuple(rows),
    )


def _labels(entries: Sequence[Entry]) -> list[str]:
    """Return method and bits; where that names several entries, the folder too, and where that does, a number."""
    plain = [f"{entry.method} {entry.bits}" if entry.quantized else entry.method for entry in entries]
    labels = [
        f"{label} ({entry.folder.name})" if plain.count(label) > 1 else label
        for label, entry in zip(plain, entries, strict=True)
    ]
    return [
        f"{label} #{labels[:i].count(label) + 1}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def metric_heading(traits: Mapping[str, MetricTraits], metric: str) -> str:
    """Return the heading of a metric with its unit; one that is not among the traits keeps its name."""
    return traits[metric].heading if metric in traits else metric


def ranges_text(entry: Entry) -> str:
    """Return whether ranges of activations are static or dynamic; nothing for full precision."""
    if not entry.quantized:
        return NOTHING
    return "dynamic" if entry.dynamic else "static"


def size_text(row: Row) -> str:
    """Return the counted size in KB."""
    return NOTHING if row.entry.size is None else f"{row.entry.size / 1000:.0f}"


def ratio_text(row: Row) -> str:
    """Return by how much the network is smaller than in full precision."""
    return NOTHING if row.ratio is None else f"{row.ratio:.2f}"


def seconds_text(row: Row) -> str:
    """Return the seconds of calibration and training."""
    return NOTHING if row.seconds is None else f"{row.seconds:.1f}"


def markdown(groups: Sequence[Group]) -> str:
    """Return one Markdown table of all groups, and under it what it leaves out; methods with dynamic ranges say so."""
    metrics = list(dict.fromkeys(metric for group in groups for metric in group.metrics))
    traits = {metric: stated for group in groups for metric, stated in group.traits.items()}
    several = len({(group.network, group.scale) for group in groups}) > 1
    heads = [
        "method",
        "W/A bits",
        *(["network"] if several else []),
        "dataset",
        *(metric_heading(traits, m) for m in metrics),
    ]
    heads += ["size (KB)", "ratio"]
    lines = [heads]
    for group in groups:
        for row in group.rows:
            cells = [row.entry.method + (" (dynamic ranges)" if row.entry.dynamic else ""), row.entry.bits]
            cells += [f"{group.network} x{group.scale}"] if several else []
            cells += [group.dataset, *(group.text(metric, row.values.get(metric)) for metric in metrics)]
            lines.append([*cells, size_text(row), ratio_text(row)])
    gaps = [sentence for group in groups for sentence in group.gaps()]
    return "\n".join([markdown_table(lines), *(["", *gaps] if gaps else [])])
