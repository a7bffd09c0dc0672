"""Whether an option of BasicSR or 2DQuant is one of this project, or of a plugin, so that it is not translated."""

from collections.abc import Mapping
from typing import Any

import pydantic

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.schema import Options, TrainOptions
from basicsr.utils.options.upstream.rows import Given, Row
from basicsr.utils.options.upstream.table import ROWS
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY, Registry
from basicsr.utils.signature import is_model

_MODEL_OF = {old: row.convert(old, {}) for row in ROWS if row.old == "model_type" and row.convert for old in row.equals}


def is_known(row: Row, path: str, value: Any, given: Given) -> bool:
    """Whether what a row would translate has a meaning here: the name of an option, or the registered name of a component.

    Args:
        row: the row.
        path: where the option is.
        value: what it is.
        given: all options of the run.
    """
    if row.equals:
        registry = _registry(path)
        return registry is not None and value in registry.names()
    return row.new != row.old and not row.models and is_option(path, given)


def is_option(path: str, given: Given) -> bool:
    """Whether a path is an option of the schema, or of the component that the options name."""
    *sections, name = path.split(":")
    registry = _registry(f"{':'.join(sections)}:type")
    if registry is not None:
        return name == "type" or name in _options(registry, _component(sections, given))
    if sections == ["train"]:
        model = str(given.get("model_type", "PTQModel"))
        return name in TrainOptions.model_fields or name in _options(MODEL_REGISTRY, _MODEL_OF.get(model, model))
    schema = _schema(sections)
    return schema is not None and name in schema.model_fields


def _registry(path: str) -> Registry | None:
    """Return where the component of a path that ends with its type is registered."""
    if path == "model_type":
        return MODEL_REGISTRY
    keys = path.split(":")
    if keys[-1] != "type":
        return None
    if keys[:-1] in (["network_g"], ["network_Q"]):
        return ARCH_REGISTRY
    if keys[0] == "datasets" and len(keys) == 3:
        return DATASET_REGISTRY
    return METRIC_REGISTRY if keys[:2] == ["val", "metrics"] and len(keys) == 4 else None


def _component(sections: list[str], given: Given) -> Any:
    """Return the type of the component that a section describes."""
    place: Any = given
    for section in sections:
        place = place.get(section) if isinstance(place, Mapping) else None
    name = place.get("type") if isinstance(place, Mapping) else None
    return name or ("PairedImageDataset" if sections[0] == "datasets" else None)


def _options(registry: Registry, name: Any) -> set[str]:
    try:
        return set(registry.schema(name).model_fields)
    except OptionsError:  # told later, with the path of the option
        return set()


def _schema(sections: list[str]) -> type[pydantic.BaseModel] | None:
    schema: type[pydantic.BaseModel] | None = Options
    for section in sections:
        field = schema.model_fields.get(section) if schema is not None else None
        annotation = field.annotation if field is not None else None
        schema = annotation if is_model(annotation) else None
    return schema
