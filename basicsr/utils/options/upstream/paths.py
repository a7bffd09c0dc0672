"""Options by paths such as `datasets:*:io_backend` in mappings of mappings."""

from collections.abc import Iterator, Mapping
from typing import Any


def matches(options: Mapping[str, Any], pattern: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of every option that is at a path in which `*` stands for any key."""
    key, _, rest = pattern.partition(":")
    for name in list(options) if key == "*" else [key] if key in options else []:
        value = options[name]
        if not rest:
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((f"{name}:{path}", found) for path, found in matches(value, rest))


def put(options: dict[str, Any], path: str, value: Any) -> None:
    """Set an option; a section that is there already takes the entries of a mapping."""
    *sections, key = path.split(":")
    for section in sections:
        inner = options.get(section)
        options[section] = dict(inner) if isinstance(inner, Mapping) else {}
        options = options[section]
    old = options.get(key)
    options[key] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value


def remove(options: dict[str, Any], path: str) -> None:
    """Take an option away, and the sections that are empty without it."""
    section, _, rest = path.partition(":")
    if not rest:
        options.pop(section, None)
        return
    inner = dict(options[section])
    remove(inner, rest)
    if inner:
        options[section] = inner
    else:
        del options[section]


def filled(pattern: str, path: str, of: str) -> str:
    """Return a pattern with its `*` replaced by the key that the one of `of` stands for in `path`."""
    keys = [key for key, part in zip(path.split(":"), of.split(":"), strict=True) if part == "*"]
    return pattern.replace("*", keys[0]) if keys else pattern
