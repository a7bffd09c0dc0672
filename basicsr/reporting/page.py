"""report.html: entries to groups, figures and pictures, and all of it into one file that needs no other."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from basicsr.reporting import figures, tables
from basicsr.reporting.activations import layers_of
from basicsr.reporting.entries import Entry, Training
from basicsr.reporting.figures import Style, style_name, styles_of
from basicsr.reporting.pictures import MOST_PICTURES, Embedded, embed, views_of
from basicsr.reporting.tables import Group, Row, group_entries
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import atomic_path, real_path
from basicsr.utils.options import by_path

PICTURE_BYTES = 4_300_000
"""What the pictures of a page may take, of all groups together; a page of a network with its figures then stays below 5 MB."""

MOST_LAYERS = 20
"""Layers of sensitivity.json that a page shows."""

_TEMPLATES = Path(__file__).with_name("templates")
_logger = logging.getLogger(__name__)


def write_report(entries: Sequence[Entry], file: Path, title: str) -> list[Group]:
    """Write a page of everything that the entries hold.

    Args:
        entries: in the order in which they are to appear; one at least.
        file: the HTML file.
        title: heading of the page.

    Returns:
        The groups that the page shows.

    Raises:
        DataError: a file of an entry is damaged.
        CheckpointError: the page cannot be written.
    """
    groups = group_entries(entries)
    text = render(groups, entries, title)
    failure = f"The report '{file}' could not be written"
    with explained(CheckpointError, failure), atomic_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return groups


def render(groups: Sequence[Group], entries: Sequence[Entry], title: str) -> str:
    """Return the page as text; everything that comes from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {
        name: getattr(tables, name) for name in ("ranges_text", "size_text", "ratio_text", "seconds_text")
    }
    styles = styles_of([style_name(row) for group in groups for row in group.rows if row.entry.quantized])
    trainings = _trainings(entries)
    return environment.get_template("report.html.j2").render(
        title=title,
        sections=_sections(groups, styles),
        activations=_activation_sections(groups, styles),
        trainings=[_training_section(training, entries) for training in trainings],
        runs=_runs(entries),
        palette=figures.COLOURS,
    )


def _sections(groups: Sequence[Group], styles: Mapping[str, Style]) -> list[dict[str, Any]]:
    found = [views_of(group, MOST_PICTURES) for group in groups]
    shares = max(1, sum(bool(views) for views, _ in found))
    sections = []
    for group, (views, remark) in zip(groups, found, strict=True):
        embedded = embed(views, PICTURE_BYTES // shares)
        if len(embedded) < len(views):
            remark = f"Only {len(embedded)} of {len(views)} pictures fit into the page. {remark}"
        svgs = figures.metric_figures(group, styles)
        shared = {style_name(row): styles[style_name(row)] for row in group.rows if row.entry.quantized}
        sections.append(
            {
                "group": group,
                "best": {metric: group.best(metric) for metric in group.metrics},
                "figures": svgs,
                "legend": shared
                if svgs and len({row.entry.bits for row in group.rows if row.entry.quantized}) > 1
                else {},
                "pictures": [_for_viewer(picture) for picture in embedded],
                "remark": remark.strip(),
                "chosen": _first_choice(group, embedded),
            }
        )
    return sections


def _for_viewer(picture: Embedded) -> dict[str, Any]:
    return {"name": picture.name, "size": picture.size, "crop": picture.crop, "versions": list(picture.versions)}


def _first_choice(group: Group, pictures: Sequence[Embedded]) -> tuple[str, str]:
    """Return the labels that the slider compares at first: full precision, or else HR, with the last method."""
    labels = [version["label"] for version in pictures[0].versions] if pictures else []
    if not labels:
        return "", ""
    full = group.full_precision
    left = full.label if full is not None and full.label in labels and labels[-1] != full.label else labels[0]
    return left, labels[-1]


def _activation_sections(groups: Sequence[Group], styles: Mapping[str, Style]) -> list[dict[str, Any]]:
    """Return the layers to show of each network, scale and number of bits; every entry once, whatever its data sets."""
    members: dict[tuple[str, int, str], dict[int, Row]] = {}
    for group in groups:
        for row in group.rows:
            if row.entry.quantized and row.entry.activations:
                members.setdefault((group.network, group.scale, row.entry.bits), {}).setdefault(id(row.entry), row)
    sections = []
    for (network, scale, bits), rows in members.items():
        of_rows = {row.label: styles[style_name(row)] for row in rows.values()}
        layers = [(layer, figures.layer_figure(layer, of_rows)) for layer in layers_of(list(rows.values()))]
        first = next(iter(rows.values())).entry.activations or {}
        if layers:
            sections.append(
                {
                    "title": f"{network} x{scale} at {bits} bits",
                    "pictures": first.get("pictures", []),
                    "layers": layers,
                    "styles": of_rows,
                }
            )
    return sections


def _trainings(entries: Sequence[Entry]) -> list[Training]:
    """Return every training once."""
    found = {real_path(entry.training.folder): entry.training for entry in entries if entry.training is not None}
    return list(found.values())


def _training_section(training: Training, entries: Sequence[Entry]) -> dict[str, Any]:
    owner = next(entry for entry in entries if entry.training is not None and entry.training.folder == training.folder)
    measured = dict.fromkeys(key for line in training.history for key in line)
    shown = [metric for metric in measured if metric in owner.traits and owner.traits[metric].in_plots]
    drawn = [
        figures.loss_figure(training),
        *(figures.validation_figure(training, metric, owner.traits[metric].heading) for metric in shown),
    ]
    label = f"{owner.method.removesuffix(' calibrated')} {owner.bits}" if owner.quantized else owner.method
    return {
        "title": label if owner.folder != training.folder else training.folder.name,
        "folder": str(training.folder),
        "figures": [svg for svg in drawn if svg is not None],
        "has_losses": drawn[0] is not None,
        "layers": _costly_layers(training),
    }


def _costly_layers(training: Training) -> list[dict[str, str]]:
    """Return the layers whose quantization alone changes the output most, as text, with their share of the sum of all errors."""
    total = sum(layer["mean_squared_error"] for layer in training.sensitivity)
    return [
        {
            "name": layer["name"],
            "bits": ", ".join(f"{path} {bits}" for path, bits in layer["bits"].items()),
            "share": f"{layer['mean_squared_error'] / total:.1%}",
            "fidelity": f"{layer['fidelity']:.2f}",
        }
        for layer in training.sensitivity[:MOST_LAYERS]
        if layer["mean_squared_error"]
    ]


def _runs(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return versions and options of each folder; options in full for the first, then what differs from the first."""
    folders = {real_path(entry.folder): entry for entry in entries}
    first: dict[str, str] = {}
    runs = []
    for entry in folders.values():
        options = {path: _text(value) for path, value in by_path(entry.options).items()}
        differs = {key: value for key, value in options.items() if first.get(key) != value} if first else options
        missing = [key for key in first if options and key not in options]
        runs.append(
            {
                "folder": str(entry.folder),
                "provenance": entry.provenance,
                "options": differs,
                "missing": missing,
                "compared": bool(first),
                "known": bool(options),
            }
        )
        first = first or options
    return runs


def _text(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )
