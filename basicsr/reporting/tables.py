"""Entries side by side: rows in groups that compare like with like, as values, text and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from basicsr.reporting.entries import Entry

NOTHING = "-"
_KNOWN = {"psnr": ("PSNR", "dB", 3), "ssim": ("SSIM", "", 4), "fidelity": ("fidelity", "dB", 2)}
"""Name, unit and digits of metrics; others go by the name that the files have."""
_DIGITS_OF_OTHERS = 4


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        entry: what was measured.
        label: its name on the page, the only one of that name in its group.
        values: metrics by name; None where one is infinite.
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
        rows: in the order in which they were given.
    """

    network: str
    scale: int
    dataset: str
    protocol: Mapping[str, Any]
    pictures: tuple[str, ...]
    metrics: tuple[str, ...]
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
    def dynamic(self) -> bool:
        """Whether a row has ranges that are computed anew for each sample."""
        return any(row.entry.dynamic for row in self.rows)

    def describe_protocol(self) -> str:
        """Return how it was measured, as a sentence."""
        count = f"{len(self.pictures)} pictures" if self.pictures else "Means of the data set"
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
    return Group(
        network=first.network,
        scale=first.scale,
        dataset=dataset,
        protocol=first.protocol,
        pictures=tuple(sorted(first.images.get(dataset, ()))),
        metrics=tuple(dict.fromkeys(metric for row in rows for metric in row.values)),
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


def metric_title(metric: str) -> str:
    """Return the heading of a metric with its unit, such as `PSNR (dB)`; an unknown one keeps its name."""
    name, unit, _ = _known(metric)
    return f"{name} ({unit})" if unit else name


def metric_phrase(metric: str, value: float) -> str:
    """Return a metric with its value and unit for running text, such as `PSNR 31.18 dB`."""
    name, unit, _ = _known(metric)
    return f"{name} {metric_text(metric, value)} {unit}".rstrip()


def _known(metric: str) -> tuple[str, str, int]:
    return _KNOWN.get(metric, (metric, "", _DIGITS_OF_OTHERS))


def metric_text(metric: str, value: float | None, absent: str = NOTHING) -> str:
    """Return a value with the digits that are usual for its metric; `absent` for None."""
    if value is None:
        return absent
    return f"{value:.{_known(metric)[2]}f}"


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
    """Return one Markdown table of all groups; methods with dynamic ranges say so."""
    metrics = list(dict.fromkeys(metric for group in groups for metric in group.metrics))
    several = len({(group.network, group.scale) for group in groups}) > 1
    heads = ["method", "W/A bits", *(["network"] if several else []), "dataset", *map(metric_title, metrics)]
    heads += ["size (KB)", "ratio"]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for group in groups:
        for row in group.rows:
            cells = [row.entry.method + (" (dynamic ranges)" if row.entry.dynamic else ""), row.entry.bits]
            cells += [f"{group.network} x{group.scale}"] if several else []
            cells += [group.dataset, *(metric_text(metric, row.values.get(metric)) for metric in metrics)]
            lines.append(_line([*cells, size_text(row), ratio_text(row)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
