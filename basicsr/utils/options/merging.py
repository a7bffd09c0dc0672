"""From a YAML file, the files it builds on (`base:`) and overrides to one mapping."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.files import real_path, why_no_file
from basicsr.utils.options.old_names import replacement_of, with_new_names
from basicsr.utils.options.overrides import parse_override, types_first
from basicsr.utils.yaml_loader import Written, guessed, read_yaml

AXES = ("network", "recipe", "scale", "bit")
"""Options by which a file serves many runs: placeholders have their values, `base:` and `where:` depend on them."""
_PLACEHOLDER = re.compile(r"{([A-Za-z_]\w*)}")


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, section by section; a section of another `type` replaces the old one."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        old = merged.get(key)
        types = [part["type"] for part in (old, value) if isinstance(part, dict) and part.get("type") is not None]
        other_type = len(types) == 2 and types[0] != types[1]
        if isinstance(old, dict) and isinstance(value, dict) and not other_type:
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def by_path(options: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return options by their path, such as `train:total_iter`; an empty section stays one value.

    Args:
        options: mappings of mappings.
        section: path of `options` itself.
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        path = f"{section}:{key}".lstrip(":")
        found |= by_path(value, path) if isinstance(value, Mapping) and value else {path: value}
    return found


def read_with_bases(path: Path) -> dict[str, Any]:
    """Return what a YAML file and the files it builds on say, as YAML takes it; see `read_layers`."""
    return guessed(read_layers(path, []).merged())


@dataclass(frozen=True)
class Layers:
    """What is laid over each other to the options of a run.

    Attributes:
        files: a file and those it builds on, in the order in which they are laid over each other, and sections of `where:`.
        changes: the overrides, by their text.
    """

    files: list[dict[str, Any]]
    changes: dict[str, dict[str, Any]]

    def merged(self, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> dict[str, Any]:
        """Return all layers in one mapping, with `Written` values among them, see yaml_loader.py.

        Args:
            change: what is done to each layer before.

        Raises:
            OptionsError: an override goes through something that is no section.
        """
        merged: dict[str, Any] = {}
        for content in self.files:
            merged = merge(merged, change(content))
        for override, content in self.changes.items():
            _check_sections(merged, override)
            merged = merge(merged, change(content))
        return merged


def read_layers(path: Path, overrides: list[str]) -> Layers:
    """Read a YAML file and those that its `base:` names, and overrides.

    `base:` is a path or a list of paths, relative to the file; `{network}`, `{recipe}`, `{scale}` and `{bit}` stand in it for the
    values that these options have in the end. `where:` holds sections that are laid over a file under a condition.

    Raises:
        OptionsError: a file does not exist, builds on itself or is no mapping; an override is of a wrong form.
    """
    changes = {override: parse_override(override) for override in overrides}
    given: dict[str, Any] = {}
    for change in changes.values():
        given |= _axes_in(change)
    axes = _find_axes(path, given, ())
    scale = axes.get("scale")
    files = [with_new_names(content, scale) for content in _read(path, axes, ())]
    return Layers(files, {override: with_new_names(changes[override], scale) for override in types_first(changes)})


def _axes_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the axes that a mapping gives; names as they are written."""
    found = {key: content[key] for key in AXES if content.get(key) is not None}
    return {
        key: value.text if isinstance(value, Written) and key in ("network", "recipe") else guessed(value)
        for key, value in found.items()
    }


def _find_axes(path: Path, known: dict[str, Any], seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values that the axes have in the end: what is known, then what the file says, then its later bases first."""
    content = _content(path)
    known = {**_axes_in(content), **known}
    for base in reversed(_bases(content, path, known, seen)):
        known = _find_axes(base, known, (*seen, real_path(path)))
    return known


def _content(path: Path) -> dict[str, Any]:
    if why_no_file(path) is not None and (remedy := replacement_of(path)):
        raise OptionsError(f"The options file '{path}' of an earlier version is another one now. {remedy}")
    return read_yaml(path)


def _read(path: Path, axes: Mapping[str, Any], seen: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    """Yield what the files under `base` say, then the file, then its sections of `where:` that hold."""
    content = read_yaml(path)
    bases, where = _bases(content, path, axes, seen), content.pop("where", {})
    content.pop("base", None)
    for base in bases:
        yield from _read(base, axes, (*seen, real_path(path)))
    yield _with_resolved_file(content, path.parent)
    yield from _that_hold(where, axes, path)


def _with_resolved_file(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of an options file with `after:options`, which is relative to the file, as a path of its own."""
    after = content.get("after")
    if not isinstance(after, dict) or not isinstance(after.get("options"), str):
        return content
    return {**content, "after": {**after, "options": str(folder / after["options"])}}


def _bases(content: Mapping[str, Any], path: Path, axes: Mapping[str, Any], seen: tuple[Path, ...]) -> list[Path]:
    """Return the files that a file builds on.

    Raises:
        OptionsError: `base` is neither a path nor a list of paths, has a placeholder without a value, or leads back to the file.
    """
    if real_path(path) in seen:
        names = ", ".join(file.name for file in seen)
        raise OptionsError(f"'{real_path(path)}' builds on itself through `base:`. Remove one of {names}.")
    bases = content.get("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise OptionsError(f"`base` in '{path}' must be a path or a list of paths, not {guessed(bases)!r}.")
    files = [path.parent / _filled(base, axes, f"`base` in '{path}'") for base in bases]
    for base, file in zip(bases, files, strict=True):
        _check_axis(base, file, axes)
    return files


def _check_axis(base: str, file: Path, axes: Mapping[str, Any]) -> None:
    """Raise an OptionsError if an axis chooses a file that does not exist, with the nearest that does."""
    stem = Path(base).stem
    if file.is_file() or stem not in [f"{{{axis}}}" for axis in AXES]:
        return
    axis = stem.strip("{}")
    known = sorted(other.stem for other in file.parent.glob("*.yml"))
    raise OptionsError(
        f"Option '{axis}' has the value '{axes[axis]}', which is none of those that there are. {suggestion(str(axes[axis]), known)}"
    )


def _that_hold(where: Any, axes: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the sections of `where:` whose condition holds, in the order of the file."""
    if not isinstance(where, dict):
        raise OptionsError(f"`where` in '{path}' must map conditions such as network=edsr* to options, not {where!r}.")
    for condition, changes in where.items():
        if not isinstance(changes, dict):
            raise OptionsError(f"`where:{condition}` in '{path}' must hold options, not {guessed(changes)!r}.")
        if _holds(str(condition), axes, path):
            yield changes


def _holds(condition: str, axes: Mapping[str, Any], path: Path) -> bool:
    """Whether `network=edsr*|rdn* scale=4` holds: every axis matches one of its globs."""
    for part in condition.split():
        axis, separator, globs = part.partition("=")
        if not separator or axis not in AXES:
            raise OptionsError(
                f"The condition '{condition}' under `where` in '{path}' must be of the form axis=glob. {suggestion(axis, AXES)}"
            )
        if axis not in axes or not any(fnmatchcase(str(axes[axis]), glob) for glob in globs.split("|")):
            return False
    return True


def apply_override(options: dict[str, Any], override: str) -> dict[str, Any]:
    """Return options with `section:key=value` laid over them, values as YAML takes them; see `read_layers`."""
    change = guessed(parse_override(override))
    _check_sections(options, override)
    return merge(options, change)


def _check_sections(options: dict[str, Any], override: str) -> None:
    """Raise an OptionsError if the path of an override goes through something that is not a section."""
    *sections, _ = override.partition("=")[0].strip().split(":")
    place: Any = options
    for depth, section in enumerate(sections):
        place = place.get(section) or {}
        if not isinstance(place, dict):
            through = ":".join(sections[: depth + 1])
            raise OptionsError(f"The override '{override}' goes through '{through}', which is no section.")


def fill_placeholders(raw: dict[str, Any]) -> dict[str, Any]:
    """Replace `{network}`, `{recipe}`, `{scale}`, `{bit}` and what `placeholders:` defines in all texts, so that these follow them.

    What `placeholders:` defines may have the four axes in it.

    Raises:
        OptionsError: `placeholders` is no mapping to texts, or a placeholder is unknown or has no value.
    """
    raw = dict(raw)
    defined = raw.pop("placeholders", None) or {}
    if not isinstance(defined, dict):
        raise OptionsError(f"Option 'placeholders' must map names to texts, not {guessed(defined)!r}.")
    axes = {key: raw.get(key) for key in AXES}
    texts = {key: value.text if isinstance(value, Written) else value for key, value in defined.items()}
    known = axes | {
        key: _filled(text, axes, f"Option 'placeholders:{key}'") if isinstance(text, str) else text
        for key, text in texts.items()
    }

    def fill(value: Any, where: str) -> Any:
        if isinstance(value, str):
            return _filled(value, known, f"Option '{where}'")
        if isinstance(value, dict):
            return {key: fill(item, f"{where}:{key}".lstrip(":")) for key, item in value.items()}
        return [fill(item, where) for item in value] if isinstance(value, list) else value

    return fill(raw, "")


def _filled(text: str, values: Mapping[str, Any], where: str) -> str:
    def value_of(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in values and name not in AXES:
            raise OptionsError(
                f"{where} has the placeholder '{{{name}}}', which nothing defines. {suggestion(name, dict.fromkeys([*AXES, *values]))}"
            )
        if values.get(name) is None:
            raise OptionsError(f"{where} has the placeholder '{{{name}}}', but '{name}' has no value. Set {name}.")
        return str(values[name])

    return _PLACEHOLDER.sub(value_of, text)
