"""From a YAML file, the files it builds on (`base:`) and overrides to one mapping."""

import copy
from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.yaml_loader import parse_yaml, read_yaml


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, section by section; a section of another `type` replaces the old one."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        old = merged.get(key)
        other_type = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) != old.get("type")
        )
        if isinstance(old, dict) and isinstance(value, dict) and not other_type:
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def read_with_bases(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML file laid over the files that its `base:` names (a path or a list, relative to the file).

    Raises:
        OptionsError: a base does not exist, or a file builds on itself.
    """
    path = path.resolve()
    if path in seen:
        raise OptionsError(
            f"'{path}' builds on itself through `base:`. Remove one of {', '.join(p.name for p in seen)}."
        )
    content = read_yaml(path)
    bases = content.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise OptionsError(f"`base` in '{path}' must be a path or a list of paths, not {bases!r}.")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = merge(merged, read_with_bases(path.parent / base, (*seen, path)))
    return merge(merged, content)


def apply_override(options: dict[str, Any], override: str) -> dict[str, Any]:
    """Return the options with `section:key=value` laid over them, as a file that builds on them would; the value is YAML.

    Raises:
        OptionsError: there is no `=`, or the path goes through something that is not a section.
    """
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise OptionsError(f"The override '{override}' is not of the form section:key=value.")
    *sections, key = path.strip().split(":")
    place: Any = options
    for depth, section in enumerate(sections):
        place = place.get(section) or {}
        if not isinstance(place, dict):
            raise OptionsError(
                f"The override '{override}' goes through '{':'.join(sections[: depth + 1])}', which is no section."
            )
    changes = {key: parse_yaml(text, f"--force_yml {path}")}
    for section in reversed(sections):
        changes = {section: changes}
    return merge(options, changes)


def fill_placeholders(raw: dict[str, Any]) -> dict[str, Any]:
    """Replace `{scale}` and `{bit}` in all texts by the values of these options, so that paths and names follow them."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            for key in ("scale", "bit"):
                value = value.replace(f"{{{key}}}", str(raw.get(key)))
            return value
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return fill(raw)
