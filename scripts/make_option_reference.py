"""Write docs/options.md, the tables of docs/from-basicsr.md, options/schema.json and options/sweep_schema.json from the code.

    python scripts/make_option_reference.py

From the root of the repository. Names, types, defaults and ranges are those that options are checked by; descriptions are the
docstrings under the fields and the `Args` of constructors.
"""

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import pydantic
from pydantic.fields import FieldInfo

from basicsr.sweep.grid import Grid
from basicsr.utils.files import atomic_path
from basicsr.utils.options import Options
from basicsr.utils.signature import schema_of
from option_schema import Json, argument_docs, components, field_docs, models_in, part_of, schema, sweep_schema
from option_translation import with_tables

DOCUMENT, SCHEMA = ROOT / "docs/options.md", ROOT / "options/schema.json"
SWEEP_SCHEMA = ROOT / "options/sweep_schema.json"
TRANSLATION = ROOT / "docs/from-basicsr.md"
FILLED = {  # what the framework fills in, by kind of component
    "architecture": {"upscale": "`scale`"},
    "metric": {"crop_border": "that of `val`", "test_y_channel": "that of `val`"},
}


def main() -> None:
    """Write the four files."""
    written = {DOCUMENT: document(), SCHEMA: _as_text(schema()), SWEEP_SCHEMA: _as_text(sweep_schema())}
    written[TRANSLATION] = with_tables(TRANSLATION.read_text(encoding="utf-8"))
    for file, text in written.items():
        with atomic_path(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{file}: {len(text)} characters.")


def _as_text(content: Json) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def document() -> str:
    """Return the reference in Markdown."""
    text = [
        "# Options\n",
        "Written by `python scripts/make_option_reference.py` from the schema that options are checked by.\n",
        "Keys are addressed as `section:key`, also by `--force_yml`. A default of `-` means that the option must be given.",
        "How files build on each other is on the page of [options files](options-files.md).\n",
        "## Top level\n", _table(Options, field_docs(Options)),
    ]  # fmt: skip
    for name, field in Options.model_fields.items():
        for model in models_in(field.annotation):
            text += [f"## {name}\n", f"{inspect.getdoc(model)}\n", _table(model, field_docs(model))]
            text += _entries(model, name)
    for kind, found in components().items():
        where = "`train`, with `model_type`" if kind == "model" else "`type` and"
        text += [f"## {kind[0].upper()}{kind[1:]}: {where} these options\n"]
        for name, component in found.items():
            summary = (inspect.getdoc(component) or "").partition("\n\n")[0].replace("\n", " ")
            text += [f"### {kind}: {name}\n", *([f"{summary}\n"] if summary else [])]
            text += [_table(schema_of(component), argument_docs(component), FILLED.get(kind, {}))]
    text += [
        "## Sweeps\n",
        f"{(inspect.getdoc(Grid) or '').partition(chr(10) * 2)[0]}\n",
        _table(Grid, field_docs(Grid)),
    ]
    return "\n".join([*text, *_entries(Grid, "sweep")])


def _entries(model: type[pydantic.BaseModel], where: str) -> list[str]:
    """Return the tables of the sections inside a section."""
    text = []
    for key, field in model.model_fields.items():
        for nested in models_in(field.annotation):
            text += [f"### {where}:{key}\n", f"{inspect.getdoc(nested)}\n", _table(nested, field_docs(nested))]
    return text


def _table(model: type[pydantic.BaseModel], docs: Mapping[str, str], filled: Mapping[str, str] | None = None) -> str:
    properties = part_of(model, docs).get("properties", {})
    if not properties:
        return "No options.\n"
    lines = ["| option | type and range | default | what it does |", "|---|---|---|---|"]
    for name, value in properties.items():
        default = (filled or {}).get(name) or _default_text(model.model_fields[name])
        cells = (f"`{name}`", _type_text(value), default, value.get("description", ""))
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "-"
    default = field.get_default(call_default_factory=True)
    return "see below" if isinstance(default, pydantic.BaseModel) else f"`{json.dumps(default)}`"


def _type_text(value: Json) -> str:
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type_text(option) for option in value["anyOf"]))
    if "enum" in value or "const" in value:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in value.get("enum", [value.get("const")]))
    if "$ref" in value:
        return "section"
    if value.get("type") == "array":
        return f"list of {_type_text(value['items'])}" if value.get("items") else "list"
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "null",
    }
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[key]}" for key, sign in signs.items() if key in value]
    return " ".join([names.get(value.get("type", ""), "mapping"), ", ".join(limits)]).strip()


if __name__ == "__main__":
    main()
