"""Strict reading of YAML: no duplicate keys, no tags that build objects, and `1e-4` is a number.

What stands without quotation marks and is no text to YAML comes as `Written`: the option that it is given for decides whether
`0123` and `on` are texts, see utils/options/written.py.
"""

import copy
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from basicsr.utils.errors import OptionsError, suggestion

_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_MOST_VALUES = 1_000_000
_NOT_WHAT_IT_SEEMS = (ValueError, OverflowError, LookupError, AttributeError)
"""What PyYAML raises for `0x_`, `2001-99-99`, `!!int x` or `!!bool x`."""


@dataclass(frozen=True)
class Written:
    """A value that can be read in more than one way.

    Attributes:
        text: as it was written.
        value: what YAML takes it for: a number, true or false, a date, a list or mapping; an OptionsError where it is no YAML.
    """

    text: str
    value: Any


def guessed(value: Any) -> Any:
    """Return values as YAML takes them, where nothing says of which type they must be.

    Raises:
        OptionsError: a text is no YAML.
    """
    if isinstance(value, Written):
        if isinstance(value.value, OptionsError):
            raise value.value
        return guessed(value.value)
    if isinstance(value, dict):
        return {key: guessed(item) for key, item in value.items()}
    return [guessed(item) for item in value] if isinstance(value, list) else value


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that reads `1e-4` as YAML 1.2 does and refuses a key that is given twice, a node inside itself, and too many values."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._as_written: set[int] = set()  # ids of nodes without quotation marks and without a tag
        self.deep_construct = True  # nodes are built at once, so that one that contains itself is noticed

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        event = self.peek_event()
        node = super().compose_scalar_node(anchor)
        if event.implicit[0]:
            self._as_written.add(id(node))
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _number_of_values(node, {}) > _MOST_VALUES:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"it stands for more than {_MOST_VALUES:,} values, since anchors repeat each other",
                node.start_mark,
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except _NOT_WHAT_IT_SEEMS as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            problem = f"'{node.value}' is written like a value of the type '{kind}' and is none; put text into quotation marks"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
        if id(node) in self._as_written and value is not None and not isinstance(value, str | Written):
            return Written(node.value, value)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            self._as_written.discard(id(key_node))  # keys are compared, not read by an option
            key = self.construct_object(key_node, deep=True)
            _check_blank(key, value_node, key_node.start_mark)
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _number_of_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for where each alias is written out; of a node inside itself, any number."""
    if id(node) not in known:
        known[id(node)] = 1
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_number_of_values(part, known) for part in parts)
    return known[id(node)]


def _check_blank(key: Any, value_node: yaml.Node, mark: yaml.Mark) -> None:
    """Explain `{type:Percentile}`, which is a key without a value to YAML."""
    name, colon, value = key.partition(":") if isinstance(key, str) else ("", "", "")
    if colon and isinstance(value_node, yaml.ScalarNode) and value_node.value == "":
        raise yaml.constructor.ConstructorError(
            None, None, f"'{key}' has no blank after the colon; write '{name}: {value}'", mark
        )


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document.

    Args:
        text: the document.
        source: where it comes from, for messages.

    Returns:
        Its values, with `Written` where there is a choice; `guessed` makes it.

    Raises:
        OptionsError: the text is no YAML, has a key twice, or a tag such as `!!python/object`.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 -- a subclass of SafeLoader
    except RecursionError as error:
        raise OptionsError(f"{source} cannot be read: it is nested too deeply. Simplify it.") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise OptionsError(f"{source}{line} cannot be read: {error.problem}. Correct the YAML there.") from error
    except yaml.YAMLError as error:
        raise OptionsError(f"{source} cannot be read as YAML: {error}.") from error


def rest_of_yaml(text: str) -> str:
    """Return what of a text that can be parsed is no part of its value: comments, marks of documents, names of nodes."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return text.strip()
    written = text[node.start_mark.index : node.end_mark.index]
    empty = isinstance(node, yaml.ScalarNode) and not node.value and written[:1] not in ("'", '"')
    return text.strip() if empty else (text[: node.start_mark.index] + text[node.end_mark.index :]).strip()


def _where_instead(path: Path) -> str:
    """Return what may have been meant by a path where no file is."""
    if path.parent.is_dir() and (beside := [file.name for file in path.parent.glob("*.y*ml")]):
        return f"In '{path.parent}': {suggestion(path.name, beside)}"
    begin = "" if path.is_absolute() else f"Its path begins at the current folder, '{Path.cwd()}'. "
    return f"{begin}The shipped ones are under options/ of the checkout."


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        OptionsError: the file is missing, is no text, or holds something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise OptionsError(f"The options file '{path}' does not exist. {_where_instead(path)}") from error
    except UnicodeDecodeError as error:
        raise OptionsError(f"The options file '{path}' is no text in UTF-8. Give a YAML file.") from error
    except OSError as error:
        raise OptionsError(
            f"The options file '{path}' cannot be read: {error.strerror or error}. Give a YAML file, and check its permissions."
        ) from error
    content = copy.deepcopy(_parsed(text, str(path)))
    if not isinstance(content, dict):
        raise OptionsError(
            f"The options file '{path}' must hold a mapping of names to values, not {type(content).__name__}."
        )
    return content


@functools.lru_cache(maxsize=256)
def _parsed(text: str, source: str) -> Any:
    """Return what `parse_yaml` does, to be copied; a sweep reads the same base files hundreds of times."""
    return parse_yaml(text, source)
