"""The table from the options of BasicSR and 2DQuant to ours in Markdown, for `make_option_reference.py`."""

import yaml

from basicsr.utils.options.upstream.rows import Row
from basicsr.utils.options.upstream.table import DEFAULTS, READ_BEFORE, ROWS, SAME

HEADING = "## Every option\n"


def with_tables(page: str) -> str:
    """Return the page with its tables, from the heading on, made anew."""
    head, _, _ = page.partition(HEADING)
    options = "".join(_line(row) for row in sorted((*ROWS, *READ_BEFORE, *SAME), key=_place))
    defaults = "".join(
        f"| `{default.path}` | {_value(default.value)} | {', '.join(f'`{model}`' for model in default.models) or 'all'} | {default.note} |\n"
        for default in DEFAULTS
    )
    return (
        f"{head}{HEADING}\n| BasicSR, 2DQuant | here | difference, or reason |\n|---|---|---|\n{options}"
        "\n## What is taken where a file says nothing\n\n"
        f"| option | value | of files with `model_type` | what it means |\n|---|---|---|---|\n{defaults}"
    )


def _place(row: Row) -> tuple[int, str, str]:
    """Return where a row stands: options of the top level first, then by section and name."""
    section, _, name = row.old.partition(":")
    return (1, section, name) if name else (0, section, "")


def _line(row: Row) -> str:
    values = ", ".join(f"`{value}`" for value in row.equals)
    old = f"`{row.old}`: {values}" if values else f"`{row.old}`"
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
