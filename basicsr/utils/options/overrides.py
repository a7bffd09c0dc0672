"""Overrides of options as they are typed, `section:key=value`."""

from collections.abc import Iterable
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.written import WrittenMapping
from basicsr.utils.yaml_loader import Written, parse_yaml, rest_of_yaml


def parse_override(override: str) -> dict[str, Any]:
    """Return `section:key=value` as a mapping of mappings.

    The value is YAML; whether it is taken for that or for a text is decided by the option, see written.py.

    Raises:
        OptionsError: there is no `=` or no key.
    """
    path, separator, text = override.partition("=")
    if not separator or not path.strip():
        raise OptionsError(f"The override '{override}' is not of the form section:key=value.")
    try:
        value = parse_yaml(text, f"--force_yml {path}")
        if rest_of_yaml(text):  # YAML takes what follows # for a comment, and --- for the start of a document
            value = Written(text.strip(), text.strip())
        elif isinstance(value, list):
            value = Written(text, value)
        elif isinstance(value, dict):
            value = WrittenMapping(value)
            value.text = text
        elif isinstance(value, str) and value.split() == text.split():
            value = text if "\n" in text else value  # of several lines YAML makes one, which no path survives
    except OptionsError as error:
        value = Written(text, error)
    for key in reversed(path.strip().split(":")):
        value = {key: value}
    return value


def types_first(overrides: Iterable[str]) -> list[str]:
    """Return overrides in their order, but a type before other keys of its section: another type replaces what the section holds."""
    ordered: list[str] = []
    for override in overrides:
        section, _, key = override.partition("=")[0].strip().rpartition(":")
        prefix, first = f"{section}:", f"{section}:type="
        stripped = [other.strip() for other in ordered]
        others = [at for at, other in enumerate(stripped) if other.startswith(prefix) and not other.startswith(first)]
        ordered.insert(others[0] if key == "type" and others else len(ordered), override)
    return ordered
