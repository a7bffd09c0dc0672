"""Options files of BasicSR and of 2DQuant under the names of this project, by the table in table.py."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.options.upstream.known import is_known, is_option
from basicsr.utils.options.upstream.paths import filled, matches, put, remove
from basicsr.utils.options.upstream.rows import LEAVE_OUT, Row
from basicsr.utils.options.upstream.table import DEFAULTS, ROWS
from basicsr.utils.registry import MODEL_REGISTRY
from basicsr.utils.yaml_loader import Written, guessed

_NEAR = 0.8
_OLD_NAMES: dict[str, list[str]] = {}
"""Names of BasicSR and 2DQuant by their section."""
for _row in ROWS:
    _OLD_NAMES.setdefault(_row.old.rpartition(":")[0], []).append(_row.old.rpartition(":")[2])
_OLD_MODELS = [name for _row in ROWS if _row.old == "model_type" for name in _row.equals]


def read_leniently(value: Any) -> Any:
    """Return values as YAML takes them; what is no YAML stays a text."""
    if isinstance(value, Written):
        return value.text if isinstance(value.value, OptionsError) else guessed(value)
    if isinstance(value, Mapping):
        return {key: read_leniently(item) for key, item in value.items()}
    return [read_leniently(item) for item in value] if isinstance(value, list) else value


class Translation:
    """What becomes of the options of one run: those of its files, then its overrides, each of which may have old names or new ones.

    Args:
        files: the options of the files, in their order.
        given: all options of the run, overrides too.
    """

    def __init__(self, files: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> None:
        self._given = read_leniently(given)
        self._model = self._given.get("model_type")
        self._told: list[dict[str, str]] = [{} for _ in ROWS]  # of each row what is said, by the path of the option
        self._is_upstream = any(self._has_old_names(file) for file in files)

    def _has_old_names(self, file: Mapping[str, Any]) -> bool:
        marks = (row for row in ROWS if row.old == "model_type" or (row.old != row.new and not row.equals))
        return any(self._found(row, file) for row in marks)

    def _found(self, row: Row, options: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return the options that a row is about, by their path."""
        if row.beside and row.beside not in options:
            return []
        return [
            (path, value)
            for path, value in matches(options, row.old)
            if row.concerns(read_leniently(value), self._model) and not is_known(row, path, value, self._given)
        ]

    def layer(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return one file or override with new names; what has no counterpart stays, for `finish` to refuse if nothing removes it."""
        result = dict(content)
        for number, row in enumerate(ROWS):
            for path, value in () if row.is_refused else self._found(row, result):
                self._apply(number, path, value, result)
        return result

    def _apply(self, number: int, path: str, value: Any, result: dict[str, Any]) -> None:
        row = ROWS[number]
        new = row.convert(value, self._given) if row.convert else value if row.new else LEAVE_OUT
        target = filled(row.new, path, row.old)
        if new is LEAVE_OUT:
            remove(result, path)
            self._told[number][path] = path
        elif (target, new) != (path, value):
            remove(result, path)
            put(result, target, new)
            told = f"{_shown(path, value)}' is '{_shown(target, new)}"
            if told != f"{path}' is '{target}" or path not in self._told[number]:  # a part of a section says less
                self._told[number][path] = told

    def finish(self, merged: dict[str, Any], tell: bool = True) -> dict[str, Any]:
        """Return all options together, with the defaults of where they come from.

        Args:
            merged: the layers, one over the other.
            tell: say in the log what was done.

        Raises:
            OptionsError: options have no counterpart and would change results, or are nearly names of BasicSR or 2DQuant.
        """
        result = dict(merged)
        problems = list(self._refused(result))
        if any(sentence.startswith("Option 'model_type=") for sentence in problems):  # what it needs goes with it
            problems = [sentence for sentence in problems if "type=" in sentence]
        if self._is_upstream:
            problems += self._typing_errors(result)
        if problems:
            raise OptionsError("\n".join(dict.fromkeys(problems)).replace("`", "'"))
        said = [_of_row(row, list(told.values())) for row, told in zip(ROWS, self._told, strict=True) if told]
        if self._is_upstream:
            said += self._add_defaults(result)
        for sentence in said if tell else ():
            get_logger().info("%s", sentence.replace("`", "'").strip())
        return result

    def _refused(self, result: dict[str, Any]) -> Iterator[str]:
        """Leave out what is harmless of the options without counterpart, and yield a sentence for each of the others."""
        for number, row in enumerate(ROWS):
            for path, value in self._found(row, result) if row.is_refused else ():
                if value is None or read_leniently(value) in (row.harmless or ()):
                    remove(result, path)
                    if value is not None:
                        self._told[number][path] = path
                else:
                    remedy = "" if row.equals else f" Remove it, or go on without it by '--force_yml {path}=null'."
                    yield f"Option '{_shown(path, value)}' has no counterpart. {row.note}{remedy}"

    def _typing_errors(self, result: Mapping[str, Any]) -> Iterator[str]:
        """Yield a sentence for each unknown option, and for a type of model, whose name is nearly one of BasicSR or 2DQuant."""
        model = str(result.get("model_type"))
        nearest = difflib.get_close_matches(model, _OLD_MODELS, n=1, cutoff=_NEAR)
        is_model = model in MODEL_REGISTRY.names()
        if nearest and not is_model and model not in _OLD_MODELS:
            yield f"Option 'model_type' is '{model}'. Did you mean '{nearest[0]}'?"
        for section, names in _OLD_NAMES.items():
            if section == "train" and not is_model:
                continue  # the model says which names there are
            for path, content in matches(result, section) if section else [("", result)]:
                for key in content if isinstance(content, Mapping) else ():
                    place = f"{path}:{key}".lstrip(":")
                    nearest = difflib.get_close_matches(str(key), names, n=1, cutoff=_NEAR)
                    if nearest and key not in names and not is_option(place, self._given):
                        yield f"Unknown option '{place}'. Did you mean '{nearest[0]}'?"

    def _add_defaults(self, result: dict[str, Any]) -> Iterator[str]:
        """Add what the files leave to defaults that are others here, and yield a sentence for each."""
        for default in DEFAULTS:
            if default.models and self._model not in default.models:
                continue
            for path, value in list(matches(result, default.needs)):
                target = filled(default.path, path, default.needs)
                if value is None or any(matches(result, target)) or (default.equals and value not in default.equals):
                    continue
                chosen = (
                    default.value(self._given, read_leniently(result)) if callable(default.value) else default.value
                )
                if chosen is not LEAVE_OUT:
                    put(result, target, chosen)
                    yield f"Option '{_shown(target, chosen)}' is taken where the file says nothing. {default.note}"


def _shown(path: str, value: Any) -> str:
    value = read_leniently(value)
    if isinstance(value, Mapping) and "type" in value:
        return f"{path}:type={value['type']}"
    if isinstance(value, Mapping | list) or value is None:
        return path
    return f"{path}={str(value).lower() if isinstance(value, bool) else value}"


def _of_row(row: Row, told: Sequence[str]) -> str:
    """Return the sentence on all options that a row was applied to."""
    several = len(told) > 1
    listed = ", ".join(f"'{text}'" for text in told)
    done = "here" if row.new and "' is '" in told[0] else "are left out" if several else "is left out"
    return f"{'Options' if several else 'Option'} {listed} {done}. {row.note}"
