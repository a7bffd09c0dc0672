"""The JSON schemas of options files and of sweeps, for editors, from the schema of options and the constructors of components.

Files that are merged by `base:` are parts, so that the schema asks for no key; but it knows all names and types, and the parameters of
every component by its `type`.
"""

import ast
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pydantic

from basicsr.quant.insertion.coverage import PRESETS
from basicsr.sweep.grid import Grid
from basicsr.training.optimizers import OPTIMIZERS, SCHEDULERS
from basicsr.utils.options import Options, OverrideOptions, RuleOptions, TrainOptions
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    CALIBRATOR_REGISTRY,
    DATASET_REGISTRY,
    GRADIENT_RULE_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    QMODULE_REGISTRY,
    QUANTIZER_REGISTRY,
    Registry,
)
from basicsr.utils.signature import is_model, not_recipe, schema_of

Json = dict[str, Any]
Components = Mapping[str, Callable[..., Any]]
PLACES = {  # the sections that describe a component; `*_loss` and the like are parameters of models
    "network_g": "architecture",
    "datasets:*": "dataset",
    "quantization:weight_quantizer": "quantizer",
    "quantization:activation_quantizer": "quantizer",
    "calibration:weights": "calibrator",
    "calibration:activations": "calibrator",
    "val:metrics:*": "metric",
}
OF_MODELS = (("_loss", "loss"), ("gradient_rule", "gradient rule"), ("optim_", "optimizer"), ("scheduler", "schedule"))
MARKED = "May differ where a run is continued."
IN_LISTS = (OverrideOptions, RuleOptions)  # a list replaces the inherited one, so that its entries are whole
READING = {
    "base": {
        "type": ["string", "array"],
        "items": {"type": "string"},
        "description": "File or files that this one builds on.",
    },
    "where": {
        "type": "object",
        "additionalProperties": {"$ref": "#"},
        "description": "Options under a condition, such as network=edsr*|rdn* scale=4.",
    },
    "placeholders": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "What stands for {name} in all texts.",
    },
}


def components() -> dict[str, Components]:
    """Return the components of each kind by name."""
    registries: tuple[Registry, ...] = (
        ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, GRADIENT_RULE_REGISTRY, QUANTIZER_REGISTRY,
        CALIBRATOR_REGISTRY, METRIC_REGISTRY,
    )  # fmt: skip
    found: dict[str, Components] = {r.kind: {name: r.get(name) for name in r.names()} for r in registries}
    return {**found, "optimizer": OPTIMIZERS, "schedule": SCHEDULERS}


def field_docs(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """Return the docstrings under the fields of a pydantic model."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def argument_docs(component: Callable[..., Any]) -> dict[str, str]:
    """Return the `Args` of a docstring by name; `a, b: text` describes both."""
    text = inspect.getdoc(component) or ""
    section = re.search(r"^Args:\n((?: .*\n?|\n)*)", text, flags=re.MULTILINE)
    found = {}
    for names, description in re.findall(
        r"^ {4}([\w*, ]+?): ((?:.*\n?)(?:^ {5,}.*\n?)*)", section.group(1) if section else "", flags=re.MULTILINE
    ):
        for name in names.split(","):
            found[name.strip()] = " ".join(description.split())
    return found


def part_of(model: type[pydantic.BaseModel], docs: Mapping[str, str]) -> Json:
    """Return the JSON schema of a model in which nothing is required, with descriptions."""
    part = model.model_json_schema(ref_template="#/$defs/{model}")
    part.pop("required", None)
    part.pop("title", None)
    part.pop("description", None)
    marked = not_recipe(model)
    for name, value in part.get("properties", {}).items():
        value.pop("title", None)
        description = [docs[name]] if name in docs else []
        description += [MARKED] if name in marked else []
        if description:
            value["description"] = " ".join(description)
    return part


def _component_schema(component: Callable[..., Any]) -> Json:
    return part_of(schema_of(component), argument_docs(component))


def _one_of(kind: str, known: Components) -> Json:
    """Return the schema of a component: by its `type`, or where that is inherited, with parameters of any of its kind."""
    names = sorted({key for component in known.values() for key in _component_schema(component)["properties"]})
    cases = [
        {
            "if": {"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"$ref": f"#/$defs/{kind}: {name}"},
        }
        for name in known
    ]
    return {
        "type": ["object", "null"],
        "properties": {"type": {"enum": sorted(known)}},
        "propertyNames": {"enum": ["type", *names]},
        "allOf": cases,
    }


def _kind_of_parameter(name: str) -> str | None:
    return next((kind for part, kind in OF_MODELS if name.endswith(part) or name.startswith(part)), None)


def _is_component(value: Json) -> bool:
    options = value.get("anyOf", [value])
    return any(option.get("type") == "object" and option.get("additionalProperties") is True for option in options)


def schema() -> Json:
    """Return the JSON schema of options files, whole or in parts."""
    known = components()
    root = part_of(Options, field_docs(Options))
    definitions: Json = {}
    for model in _all_models(Options):
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        part = part_of(model, field_docs(model)) | {"description": inspect.getdoc(model)}
        part.pop("$defs", None)
        definitions[model.__name__] = part | ({"required": required} if model in IN_LISTS else {})
    for kind, found in known.items():
        for name, component in found.items():
            part = _component_schema(component)
            definitions |= part.pop("$defs", {})
            part["properties"] = {"type": {"const": name}, **part["properties"]}
            definitions[f"{kind}: {name}"] = part
        definitions[kind] = _one_of(kind, found)
    root.pop("$defs")
    _refer_to_components(root["properties"], definitions)
    _add_models(definitions, known["model"])
    return {**_head("Options"), **root, "properties": {**READING, **root["properties"]}, "$defs": definitions}


def sweep_schema() -> Json:
    """Return the JSON schema of the file of a sweep; what its overrides may say is in the schema of options."""
    root = part_of(Grid, field_docs(Grid))
    definitions: Json = {"Overrides": {"$ref": "schema.json"}}
    for model in _all_models(Grid):
        definitions[model.__name__] = part_of(model, field_docs(model)) | {"description": inspect.getdoc(model)}
    definitions["MethodOptions"]["required"] = ["label", "options"]
    entries = {"type": ["string", "integer"]}
    for axis in ("architectures", "scales", "bits"):
        either = [{"type": "array", "items": entries}, root["properties"][axis]]
        root["properties"][axis] = {"anyOf": either, "description": "A list, or entries with overrides for each."}
    files = definitions["MethodOptions"]["properties"]["options"]
    definitions["MethodOptions"]["properties"]["options"] = {
        "anyOf": [{"type": "string"}, files],
        "description": files.pop("description"),
    }
    root.pop("$defs")
    base = {"base": READING["base"]}
    both = {**root, "properties": {**base, **root["properties"]}, "$defs": definitions}
    return {**_head("Sweep"), **_with_overrides(both)}


def _head(title: str) -> Json:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}


def _with_overrides(part: Any) -> Any:
    """Return a schema in which mappings to anything, which overrides are to pydantic, are options."""
    if isinstance(part, dict):
        if part.get("type") == "object" and part.get("additionalProperties") is True:
            kept = {key: part[key] for key in ("default", "description") if key in part}
            return {"$ref": "#/$defs/Overrides", **kept}
        return {key: _with_overrides(value) for key, value in part.items()}
    return [_with_overrides(value) for value in part] if isinstance(part, list) else part


def models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """Return the sections that an annotation names, those inside lists and unions too."""
    if is_model(annotation):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def _all_models(model: type[pydantic.BaseModel]) -> list[type[pydantic.BaseModel]]:
    found = [part for field in model.model_fields.values() for part in models_in(field.annotation)]
    return [every for part in found for every in (part, *_all_models(part))]


def _refer_to_components(properties: Json, definitions: Json) -> None:
    """Let the places of components refer to the kinds that they take, and rules of coverage to what is registered."""
    for place, kind in PLACES.items():
        section, *keys = place.split(":")
        if keys and keys != ["*"]:
            (model,) = models_in(Options.model_fields[section].annotation)
            holder, (section, *keys) = definitions[model.__name__]["properties"], keys
        else:
            holder = properties
        if keys:
            holder[section]["additionalProperties"] = {"$ref": f"#/$defs/{kind}"}
        else:
            _refer(holder, section, kind)
    definitions["RuleOptions"]["properties"]["type"]["enum"] = sorted(QMODULE_REGISTRY.names())
    preset, *_ = definitions["QuantizationOptions"]["properties"]["coverage"]["anyOf"]
    preset["enum"] = sorted(PRESETS)


def _refer(properties: Json, key: str, kind: str) -> None:
    kept = {k: properties[key][k] for k in ("description", "default") if k in properties[key]}
    properties[key] = {"$ref": f"#/$defs/{kind}", **kept}


def _add_models(definitions: Json, models: Components) -> None:
    """Put the parameters of all models under `train`; one that several have may be as any of them says."""
    train = definitions[TrainOptions.__name__]
    train["additionalProperties"] = False
    for name in models:
        properties = definitions.pop(f"model: {name}")["properties"]
        for key, value in properties.items():
            if key == "type":
                continue
            kind = _kind_of_parameter(key) if _is_component(value) else None
            if kind:
                _refer(properties, key, kind)
            other = train["properties"].setdefault(key, properties[key])
            if kind is None and {**other, "default": 0, "description": 0} != {
                **properties[key],
                "default": 0,
                "description": 0,
            }:
                train["properties"][key] = {"anyOf": [*other.get("anyOf", [other]), properties[key]]}
    del definitions["model"]
