"""The options of a component are the parameters of its constructor: their names, types and defaults are the schema."""

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import pydantic

from basicsr.utils.errors import OptionsError, suggestion

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class NotRecipe:
    """Mark of an option that does not decide what a run computes: where data lie, memory, speed.

    `Annotated[int, NOT_RECIPE]` in a section of the schema or in the constructor of a component. All others are the recipe, which a
    run that is continued must share with its first piece, and a finished run with the sweep that asks for it.
    """


@dataclass(frozen=True)
class NoEffect:
    """Mark of an option of an architecture that does not change what the network computes in evaluation."""


NOT_RECIPE = NotRecipe()
NO_EFFECT = NoEffect()

_NOT_OPTIONS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


_BRANCH = re.compile(r"[a-z-]+\[.*\]", re.DOTALL)
"""How pydantic names a branch of a union among the parts of a path, such as 'function-after[...]'."""


def describe_validation_error(error: pydantic.ValidationError, where: str, model: type[pydantic.BaseModel]) -> str:
    """Return one sentence per problem, each with the path of the key, the value and what was expected.

    Args:
        error: what pydantic raised.
        where: path of the validated mapping in the options, such as `network_g`; empty for the top level.
        model: what was validated against, to suggest the nearest name for an unknown key.
    """
    sentences = []
    for problem in error.errors():
        *before, last = problem["loc"] or ("",)
        is_key = problem["type"] == "extra_forbidden"  # any text that a user wrote
        parts = [str(p) for p in (*before, last) if (is_key and p is last) or not _BRANCH.fullmatch(str(p))]
        path = ":".join([part for part in where.split(":") if part] + parts)
        if problem["type"] == "extra_forbidden":
            sentences.append(f"Unknown option '{path}'. {suggestion(parts[-1], _names_at(model, parts[:-1]))}")
        elif problem["type"] == "missing":
            sentences.append(f"Option '{path}' is required but missing.")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            sentences.append(f"Option '{path}' has the value {problem['input']!r}: {message.rstrip('.')}.")
    return " ".join(dict.fromkeys(sentences))


def _names_at(model: type[pydantic.BaseModel], path: list[str]) -> Iterable[str]:
    """Return the names of the fields that a nested model has at a path of keys; indices of lists are passed over."""
    for key in path:
        field = model.model_fields.get(key)
        if field is not None:
            candidates = (field.annotation, *typing.get_args(field.annotation))
            model = next((c for c in candidates if is_model(c)), model)
    return model.model_fields


def is_model(annotation: Any) -> TypeGuard[type[pydantic.BaseModel]]:
    """Whether an annotation is a section of a schema; Python 3.10 takes `list[str]` for a class."""
    of_parts = typing.get_origin(annotation) is not None
    return not of_parts and isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def not_recipe(model: type[pydantic.BaseModel]) -> set[str]:
    """Return the names of the options of a schema that bear the mark `NOT_RECIPE`."""
    return _marked(model, NOT_RECIPE)


def without_effect(component: Callable[..., Any]) -> set[str]:
    """Return the names of the options of an architecture that bear the mark `NO_EFFECT`."""
    return _marked(schema_of(component), NO_EFFECT)


def _marked(model: type[pydantic.BaseModel], mark: NotRecipe | NoEffect) -> set[str]:
    return {name for name, field in model.model_fields.items() if mark in field.metadata}


def options_of(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of `component` that are options: all but positional-only ones, which the framework fills."""
    return _options_in(inspect.signature(component))


def _options_in(signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    return {name: one for name, one in signature.parameters.items() if one.kind not in _NOT_OPTIONS}


def validate_arguments(component: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check options against the constructor (or function) that they are meant for.

    Args:
        component: a class or function; parameters before a `/` are filled by the framework and are not options.
        arguments: the options as read from YAML.
        where: path of these options, used in messages.

    Returns:
        The arguments converted to the annotated types, with the defaults filled in.

    Raises:
        OptionsError: an unknown name, a missing one, or a value of another type than the annotation.
    """
    return dict(validate_model(schema_of(component), arguments, where))


@functools.cache
def schema_of(component: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """Return the schema of a component's options; a sweep reads those of the same components hundreds of times."""
    return schema_of_signature(inspect.signature(component, eval_str=True))


def schema_of_signature(signature: inspect.Signature) -> type[pydantic.BaseModel]:
    """Return the schema of the options in a signature whose annotations are types."""
    return _model({name: (_annotation(one), _default(one)) for name, one in _options_in(signature).items()})


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation


def _default(parameter: inspect.Parameter) -> Any:
    return pydantic.Field(default=... if parameter.default is inspect.Parameter.empty else parameter.default)


def _model(fields: dict[str, Any]) -> type[pydantic.BaseModel]:
    config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return pydantic.create_model("Options", __config__=config, **fields)


def validate_fields(fields: dict[str, Any], values: Mapping[str, Any], where: str) -> pydantic.BaseModel:
    """Validate `values` strictly (no text for numbers, no numbers for booleans; a list serves as a tuple)."""
    return validate_model(_model(fields), values, where)


def validate_model(model: type[ModelT], values: Mapping[str, Any], where: str) -> ModelT:
    """Validate `values` strictly against a pydantic model; see `validate_fields`."""
    try:
        # strict validation of Python objects refuses a list for a tuple; of JSON, which has no tuples, it does not
        return model.model_validate_json(json.dumps(values), strict=True)
    except TypeError as error:
        raise OptionsError(
            f"The options{where and f' under {where!r}'} hold something that is neither text, number, list nor mapping: {error}. "
            "Put text that looks like a date into quotation marks."
        ) from error
    except pydantic.ValidationError as error:
        raise OptionsError(describe_validation_error(error, where, model)) from error
