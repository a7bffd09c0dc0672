"""Registries that find a component's file by its suffix and import it on first use.

    @ARCH_REGISTRY.register()
    class SwinIR(nn.Module): ...

in `basicsr/archs/swinir_arch.py` makes `type: SwinIR` available in a YAML file. Files are read for their decorators (as
text, nothing is run) and only the file of the requested component is imported, so one broken file cannot break the others.
To check options not even that is needed: those of the package's components are read from the source, see `Registry.schema`.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from basicsr.utils.contracts import Contract
from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.registered_names import registered_names
from basicsr.utils.signature import schema_of, validate_model
from basicsr.utils.source_signature import schema_in

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]


class Registry:
    """Components of one kind, by name.

    Args:
        kind: what the components are, for messages: `architecture`, `loss`.
        variable: name of the registry in source code, by which decorators are recognised.
        folder: folder of the components relative to the package, with `/`.
        suffix: ending of the file names, such as `_arch`.
        contract: what a component must provide; without one, anything is taken.
    """

    def __init__(self, kind: str, variable: str, folder: str, suffix: str, contract: Contract | None = None) -> None:
        self.kind = kind
        self._variable = variable
        self._folders = [_PACKAGE_ROOT / folder]
        self._suffix = suffix
        self._components: dict[str, Any] = {}
        self._contract = contract
        self._checked: set[str] = set()

    def register(self, name: str | None = None) -> Callable[[Any], Any]:
        """Return a decorator that registers a class or function under `name`, by default its own name."""

        def decorator(component: Any) -> Any:
            key = name or component.__name__
            known = self._components.get(key)
            if known is not None and known.__module__ != component.__module__:
                raise OptionsError(
                    f"The {self.kind} '{key}' is defined twice, in {known.__module__} and {component.__module__}; rename one."
                )
            self._components[key] = component
            return component

        return decorator

    def add_folder(self, folder: Path) -> None:
        """Look for components in a folder outside the package too (option `plugins`)."""
        if folder not in self._folders:
            self._folders.append(folder)

    def names(self) -> list[str]:
        """Return the names of all components, imported or not."""
        return sorted(set(self._components) | set(self._files_by_name()))

    def get(self, name: str | None, where: str = "type") -> Any:
        """Return the component called `name`, importing its file if that has not happened.

        Raises:
            OptionsError: there is no such component; names the nearest one. Or its file cannot be imported, or the component
                lacks a member that its kind must have.
        """
        name = self.check_name(name, where)
        if name not in self._components:
            file = self._files_by_name()[name]
            _import_file(file)
            if name not in self._components:
                raise OptionsError(f"The file '{file}' does not register the {self.kind} '{name}' when it is imported.")
        component = self._components[name]
        if self._contract is not None and name not in self._checked:
            self._contract.require(component, self.kind, name, _file_of(component))
            self._checked.add(name)
        return component

    def check_name(self, name: Any, where: str = "type") -> str:
        """Return `name` if there is a component called so; none is imported.

        Raises:
            OptionsError: there is no such component; names the nearest one.
        """
        if not isinstance(name, str) or not name:
            raise OptionsError(
                f"Option '{where}' is {name!r}, but must name the {self.kind}. Known names: {', '.join(self.names())}."
            )
        if name not in self._components and name not in self._files_by_name():
            raise OptionsError(
                f"Option '{where}' names the {self.kind} '{name}', which does not exist. "
                f"{suggestion(name, self.names())}{self._unreadable_files()}"
            )
        return name

    def schema(self, name: str | None, where: str = "type") -> type[pydantic.BaseModel]:
        """Return the schema of a component's options.

        A component of the package is not imported for that, which would import torch, but read; one of a plugin is.

        Raises:
            OptionsError: see `get`.
        """
        name = self.check_name(name, where)
        read = None if name in self._components else self.schema_in_source(name)
        return schema_of(self.get(name, where)) if read is None else read

    def schema_in_source(self, name: str) -> type[pydantic.BaseModel] | None:
        """Return the schema of a component of the package, read from its source; None for one that has to be imported for it."""
        file = self._files_by_name()[name]
        return schema_in(file, self._registered(file)[name]) if file.is_relative_to(_PACKAGE_ROOT) else None

    def check(self, options: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the arguments in `{type: Name, ...}`, checked and with defaults filled in; see `schema` for what is imported.

        Raises:
            OptionsError: `type` is missing or unknown, or an argument does not fit the constructor.
        """
        arguments = dict(options)
        if not isinstance(arguments.get("type"), str):
            raise OptionsError(
                f"Option '{where}:type' must name the {self.kind}. Known names: {', '.join(self.names())}."
            )
        schema = self.schema(arguments.pop("type"), f"{where}:type")
        return dict(validate_model(schema, arguments, where))

    def resolve(self, options: Mapping[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
        """Split `{type: Name, ...}` into the component, which is imported, and its checked arguments, with defaults filled in.

        Raises:
            OptionsError: `type` is missing or unknown, or an argument does not fit the constructor.
        """
        arguments = self.check(options, where)
        return self.get(options["type"], f"{where}:type"), arguments

    def build(self, options: Mapping[str, Any], *given: Any, where: str) -> Any:
        """Construct the component that `options` describe; `given` fills its positional-only parameters."""
        component, arguments = self.resolve(options, where)
        return component(*given, **arguments)

    def _files_by_name(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self._folders:
            for file in sorted(folder.glob(f"*{self._suffix}.py")):
                for name in self._registered(file) or ():
                    found.setdefault(name, file)
        return found

    def _registered(self, file: Path) -> dict[str, str]:
        """Return the names of classes and functions by those that they are registered under; none of a file that is no Python."""
        return registered_names(file, self._variable) or {}

    def _unreadable_files(self) -> str:
        files = [file for folder in self._folders for file in sorted(folder.glob(f"*{self._suffix}.py"))]
        broken = [str(file) for file in files if registered_names(file, self._variable) is None]
        return f" Not searched, because they are no valid Python: {', '.join(broken)}." if broken else ""


def _file_of(component: Any) -> str:
    module = sys.modules.get(component.__module__)
    return str(getattr(module, "__file__", component.__module__))


def _import_file(file: Path) -> None:
    try:
        _import_module_of(file)
    except Exception as error:  # whatever the code of the file raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        place = f", line {lines[-1]}" if lines else ""
        raise OptionsError(
            f"The file '{file}'{place} cannot be imported: {type(error).__name__}: {error}. Correct it."
        ) from error


def _import_module_of(file: Path) -> None:
    if file.is_relative_to(_PACKAGE_ROOT):
        parts = file.relative_to(_PACKAGE_ROOT).with_suffix("").parts
        importlib.import_module(".".join(("basicsr", *parts)))
        return
    name = f"basicsr_plugin_{abs(hash(file))}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"Python does not know how to load '{file}'")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


ARCH_REGISTRY = Registry(
    "architecture", "ARCH_REGISTRY", "archs", "_arch", Contract("basicsr.archs.base", "SRNetwork", derive=False)
)
DATASET_REGISTRY = Registry(
    "dataset", "DATASET_REGISTRY", "data", "_dataset", Contract("basicsr.data.base", "PairedDataset")
)
LOSS_REGISTRY = Registry(
    "loss", "LOSS_REGISTRY", "losses", "_loss", Contract("basicsr.losses.base", "Loss", derive=False)
)
METRIC_REGISTRY = Registry("metric", "METRIC_REGISTRY", "metrics", "_metric")
MODEL_REGISTRY = Registry("model", "MODEL_REGISTRY", "models", "_model", Contract("basicsr.models.base_model", "Model"))
GRADIENT_RULE_REGISTRY = Registry(
    "gradient rule",
    "GRADIENT_RULE_REGISTRY",
    "training/gradient_rules",
    "_rule",
    Contract("basicsr.training.gradient_rules.base", "GradientRule"),
)
QUANTIZER_REGISTRY = Registry(
    "quantizer",
    "QUANTIZER_REGISTRY",
    "quant/quantizers",
    "_quantizer",
    Contract("basicsr.quant.quantizers.base", "Quantizer"),
)
CALIBRATOR_REGISTRY = Registry(
    "calibrator",
    "CALIBRATOR_REGISTRY",
    "quant/calibrators",
    "_calibrator",
    Contract("basicsr.quant.calibrators.base", "Calibrator"),
)
QMODULE_REGISTRY = Registry(
    "quantized module",
    "QMODULE_REGISTRY",
    "quant/modules",
    "_qmodule",
    Contract("basicsr.quant.modules.base", "QModule"),
)

ALL_REGISTRIES = (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    GRADIENT_RULE_REGISTRY,
    QUANTIZER_REGISTRY,
    CALIBRATOR_REGISTRY,
    QMODULE_REGISTRY,
)
