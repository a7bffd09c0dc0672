"""The table from the options of BasicSR and 2DQuant to ours in Markdown, for `make_option_reference.py`."""

import itertools

import yaml

from basicsr.utils.options.upstream.out_of_scope import BLIND, GAN, VIDEO
from basicsr.utils.options.upstream.rows import Row
from basicsr.utils.options.upstream.table import DEFAULTS, READ_BEFORE, ROWS, SAME

HEADING = "## Every option\n"


def with_tables(page: str) -> str:
    """Return the page with its tables, from the heading on, made anew."""
    head, _, _ = page.partition(HEADING)
    rows = sorted((*ROWS, *READ_BEFORE, *SAME), key=_place)
    options = "".join(_line(list(group)) for _, group in itertools.groupby(rows, _alike))
    defaults = "".join(
        f"| `{default.path}` | {_value(default.value)} | {', '.join(f'`{model}`' for model in default.models) or 'all'} | {default.note} |\n"
        for default in DEFAULTS
    )
    return (
        f"{head}{HEADING}\n| BasicSR, 2DQuant | here | difference, or reason |\n|---|---|---|\n{options}"
        "\n## What is taken where a file says nothing\n\n"
        f"| option | value | of files with `model_type` | what it means |\n|---|---|---|---|\n{defaults}"
    )


def _place(row: Row) -> tuple[bool, str, bool, str, str]:
    """Return where a row stands: options of the top level first, then by section; what stops for one reason together at the end."""
    section, _, name = row.old.rpartition(":")
    stops = row.is_refused and row.note in (GAN, VIDEO, BLIND) and not row.equals
    return bool(section), section, stops, row.note if stops else "", name


def _alike(row: Row) -> tuple[object, ...]:
    """Return what rows share that are told in one line."""
    place = _place(row)
    return (*place[:4], row.harmless) if place[2] else (*place, row.equals, row.models)


def _line(rows: list[Row]) -> str:
    row = rows[0]
    section = row.old.rpartition(":")[0]
    names = [row.old, *(other.old.removeprefix(f"{section}:") for other in rows[1:])]
    old = ", ".join(f"`{name}`" for name in names)
    if row.equals:
        old += ": " + ", ".join(f"`{value}`" for value in row.equals)
    models = f" with {', '.join(f'`{model}`' for model in row.models)}" if row.models else ""
    return f"| {old}{models} | {_here(row)} | {row.note} |\n"


def _here(row: Row) -> str:
    """Return what an option is here: its name, its value where only that is another one, or that it is left out or stops."""
    if row.new:
        value = f": `{row.convert(row.equals[0], {})}`" if row.convert and row.equals else ""
        return "the same" if row.new == row.old and not row.models and not value else f"`{row.new}`{value}"
    if row.harmless is None:
        return "left out"
    harmless = ", ".join(f"`{str(value).lower()}`" for value in row.harmless)
    return f"stops the run, unless {harmless}" if harmless else "stops the run"


def _value(value: object) -> str:
    """Return the value of a default as YAML writes it."""
    return (
        "by the file"
        if callable(value)
        else f"`{yaml.safe_dump(value, default_flow_style=True, width=200).split(chr(10))[0]}`"
    )
