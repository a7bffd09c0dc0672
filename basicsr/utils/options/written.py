"""The type of an option decides how a value is read, not YAML's guess: `name=0123` is a text, `total_iter=3e5` a whole number."""

import re
import types
import typing
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, Union

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.schema import Options
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    CALIBRATOR_REGISTRY,
    DATASET_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    QUANTIZER_REGISTRY,
    Registry,
)
from basicsr.utils.signature import is_model
from basicsr.utils.yaml_loader import Written, guessed

_INTEGER = re.compile(r"[-+]?[0-9]+")
COMPONENTS: dict[tuple[str, ...], Registry] = {  # `*` stands for every entry of a section
    ("network_g",): ARCH_REGISTRY,
    ("datasets", "*"): DATASET_REGISTRY,
    ("quantization", "weight_quantizer"): QUANTIZER_REGISTRY,
    ("quantization", "activation_quantizer"): QUANTIZER_REGISTRY,
    ("calibration", "weights"): CALIBRATOR_REGISTRY,
    ("calibration", "activations"): CALIBRATOR_REGISTRY,
    ("val", "metrics", "*"): METRIC_REGISTRY,
}


class WrittenMapping(dict[str, Any]):
    """A mapping in an override, which is a text where the option is one: `filename_tmpl={}`."""

    text = ""


def read_options(raw: dict[str, Any]) -> dict[str, Any]:
    """Return options, with `Written` values among them, read as the schema and the constructors of components say.

    What does not fit is left as YAML takes it, for the schema to refuse. Entries of a mapping that cannot be empty and are null
    are left out: so an inherited data set is removed.
    """
    for path, registry in COMPONENTS.items():
        raw = _replaced(raw, path, partial(_read_component, registry=registry))
    if isinstance(raw.get("train"), dict):
        raw = {**raw, "train": _read_arguments(raw["train"], MODEL_REGISTRY, raw.get("model_type", "PTQModel"))}
    return read_as(raw, Options)


def _replaced(value: Any, path: tuple[str, ...], change: typing.Callable[[Any], Any]) -> Any:
    """Return a mapping in which what is at a path is changed, where it is there."""
    if not path:
        return change(value)
    if not isinstance(value, dict):
        return value
    return {key: _replaced(item, path[1:], change) if path[0] in ("*", key) else item for key, item in value.items()}


def _read_component(value: Any, registry: Registry) -> Any:
    return _read_arguments(value, registry, value.get("type")) if isinstance(value, dict) else value


def _read_arguments(value: dict[str, Any], registry: Registry, name: Any) -> dict[str, Any]:
    """Return what is given for a component, read as its constructor says; as it is where there is no such component."""
    try:
        fields = registry.schema(name).model_fields
    except OptionsError:
        return value  # told later, with the path of the option
    return {key: read_as(item, fields[key].annotation) if key in fields else item for key, item in value.items()}


def read_as(value: Any, expected: Any) -> Any:
    """Return a value of YAML read as an annotation or a pydantic model says; see `read_options`."""
    kinds = list(_kinds(expected))
    if isinstance(value, Written):
        return _read_scalar(value, kinds)
    if isinstance(value, WrittenMapping) and str in kinds and not any(_is_mapping(kind) for kind in kinds):
        return value.text
    if isinstance(value, dict):
        return _read_mapping(value, kinds)
    if isinstance(value, list):
        return _read_list(value, kinds)
    return int(value) if _is_whole(value, kinds) else value


def _kinds(expected: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows; of literals the types of their values."""
    origin = typing.get_origin(expected)
    if origin is Annotated:
        yield from _kinds(typing.get_args(expected)[0])
    elif origin in (Union, types.UnionType):
        for part in typing.get_args(expected):
            yield from _kinds(part)
    elif origin is Literal:
        yield from {type(choice) for choice in typing.get_args(expected)}
    else:
        yield expected


def _read_scalar(written: Written, kinds: list[Any]) -> Any:
    value = written.value
    if Any in kinds:
        return guessed(written)
    if int in kinds and float not in kinds and _INTEGER.fullmatch(written.text):
        return int(written.text)  # YAML takes 0123 for an octal number
    if type(value) is int and ":" in written.text:  # YAML takes 1:30 for 90
        return written.text
    if type(value) in kinds or (float in kinds and type(value) is int):
        return value
    if _is_whole(value, kinds):
        return int(value)
    if isinstance(value, list) and any(typing.get_origin(kind) in (list, tuple) for kind in kinds):
        return read_as(value, Union[tuple(kinds)])  # noqa: UP007 -- of types that are known at run time only
    return written.text if str in kinds else guessed(written)


def _is_whole(value: Any, kinds: list[Any]) -> bool:
    """Whether a number such as 3e5 stands where a whole one must."""
    return isinstance(value, float) and int in kinds and float not in kinds and value.is_integer()


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is dict or is_model(kind)


def _read_mapping(value: dict[Any, Any], kinds: list[Any]) -> dict[Any, Any]:
    for kind in filter(_is_mapping, kinds):
        if typing.get_origin(kind) is dict:
            of_entries = typing.get_args(kind)[1]
            may_be_empty = bool({type(None), Any} & set(_kinds(of_entries)))
            return {key: read_as(item, of_entries) for key, item in value.items() if may_be_empty or item is not None}
        fields = kind.model_fields
        return {key: read_as(item, fields[key].annotation if key in fields else Any) for key, item in value.items()}
    return guessed(value)


def _read_list(value: list[Any], kinds: list[Any]) -> list[Any]:
    for kind in kinds:
        parts = typing.get_args(kind)
        if typing.get_origin(kind) is list:
            return [read_as(item, parts[0]) for item in value]
        if typing.get_origin(kind) is tuple and len(parts) == len(value):
            return [read_as(item, part) for item, part in zip(value, parts, strict=True)]
    return guessed(value)
