"""The parameters of a component read from its source: nothing of the file is run, so that what it imports is not needed.

Types and defaults are values of a small part of Python: constants, names of types, `list[int]`, `int | None`, `Annotated[...]`, `Field(...)`.
Names come from the file itself, from files of this package that it imports them from, and from modules that are loaded anyway.
"""

import ast
import functools
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pydantic

from basicsr.utils.signature import schema_of_signature

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]
_TYPES = {kind.__name__: kind for kind in (bool, dict, float, int, list, set, str, tuple)}
_WITHOUT_CONSTRUCTOR = {"ABC", "object", "Protocol"}
_KNOWN_PACKAGES = {"collections", "pydantic", "typing"}


class _NotReadableError(Exception):
    """A signature says more than can be read without running its file."""


@functools.cache
def schema_in(file: Path, name: str) -> type[pydantic.BaseModel] | None:
    """Return the schema of the options of a function or class in a file of this package; see `schema_of`.

    None where it has to be imported to be known.
    """
    try:
        return schema_of_signature(_signature_in(file, name))
    except _NotReadableError:
        return None


def _signature_in(file: Path, name: str) -> inspect.Signature:
    """Return the signature of a function, or of the constructor of a class without `self`."""
    function = _constructor(file, name)
    if function is None:
        return inspect.Signature()
    arguments = function.args
    kinds = [
        *[(one, inspect.Parameter.POSITIONAL_ONLY) for one in arguments.posonlyargs],
        *[(one, inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in arguments.args],
        *[(one, inspect.Parameter.KEYWORD_ONLY) for one in arguments.kwonlyargs],
    ]
    positional = len(arguments.posonlyargs) + len(arguments.args)
    defaults = [*[None] * (positional - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    scope = _Scope(file)
    parameters = [
        _parameter(scope, argument, kind, default) for (argument, kind), default in zip(kinds, defaults, strict=True)
    ]
    is_method = isinstance(_definition(file, name), ast.ClassDef)
    return inspect.Signature(parameters[1:] if is_method else parameters)


def _parameter(scope: "_Scope", argument: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    is_option = kind is not inspect.Parameter.POSITIONAL_ONLY and argument.annotation is not None
    annotation = scope.value(argument.annotation) if is_option and argument.annotation is not None else empty
    return inspect.Parameter(
        argument.arg, kind, annotation=annotation, default=empty if default is None else scope.value(default)
    )


def _constructor(file: Path, name: str) -> ast.FunctionDef | None:
    """Return the function of that name, or the constructor that a class defines or inherits; None where it has none of its own."""
    definition = _definition(file, name)
    if isinstance(definition, ast.FunctionDef):
        return definition
    if not isinstance(definition, ast.ClassDef):
        raise _NotReadableError(f"'{name}' is no function and no class of '{file}'")
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            if node.decorator_list:
                raise _NotReadableError(f"the constructor of '{name}' is decorated")
            return node
    found = (_constructor(*place) for base in definition.bases if (place := _place_of_base(file, base)) is not None)
    return next((function for function in found if function is not None), None)


def _place_of_base(file: Path, base: ast.expr) -> tuple[Path, str] | None:
    """Return the file and the name of a base class; None for one without a constructor."""
    base = base.value if isinstance(base, ast.Subscript) else base
    if not isinstance(base, ast.Name):
        raise _NotReadableError(f"the base class '{ast.unparse(base)}' is of another package")
    if base.id in _WITHOUT_CONSTRUCTOR or base.id == "Generic":
        return None
    if isinstance(_definition(file, base.id), ast.ClassDef):
        return file, base.id
    source = _imports(file).get(base.id)
    other = _file_of(source[0]) if source is not None else None
    if source is None or other is None:
        raise _NotReadableError(f"the base class '{base.id}' is of another package")
    return other, source[1]


class _Scope:
    """The names of a file, and the values of expressions in it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression.

        Raises:
            _NotReadableError: it is of another kind than those that this file names.
        """
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._named(node.id)
            case ast.Attribute():
                return getattr(self.value(node.value), node.attr)
            case ast.Subscript():
                return self.value(node.value)[self.value(node.slice)]
            case ast.BinOp(op=ast.BitOr()):
                return self.value(node.left) | self.value(node.right)
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand)
            case ast.Tuple():
                return tuple(map(self.value, node.elts))
            case ast.List():
                return list(map(self.value, node.elts))
            case ast.Dict() if None not in node.keys:
                return {self.value(key): self.value(item) for key, item in zip(node.keys, node.values, strict=True)}  # type: ignore[arg-type]
            case ast.Call(args=[]) if self.value(node.func) is pydantic.Field:
                return pydantic.Field(**{str(one.arg): self.value(one.value) for one in node.keywords})
        raise _NotReadableError(f"'{ast.unparse(node)}' in '{self._file}' is not a type or a constant")

    def _named(self, name: str) -> Any:
        definition = _definition(self._file, name)
        if isinstance(definition, ast.expr):
            return self.value(definition)
        if definition is None and name in _TYPES:
            return _TYPES[name]
        module, original = _imports(self._file).get(name, ("", ""))
        if not module:
            raise _NotReadableError(f"'{name}' in '{self._file}' is not known without importing it")
        if not original:
            return _loaded(module)
        loaded = _loaded(module)
        if hasattr(loaded, original):
            return getattr(loaded, original)
        file = _file_of(module)
        if file is None:
            raise _NotReadableError(f"'{name}' in '{self._file}' is of another package")
        return _Scope(file)._named(original)


def _loaded(module: str) -> Any:
    """Return a module that is loaded, or one of those that options need anyway; None for others."""
    if module.partition(".")[0] in _KNOWN_PACKAGES:
        return importlib.import_module(module)
    return sys.modules.get(module)


def _file_of(module: str) -> Path | None:
    """Return the file of a module of this package."""
    package, *parts = module.split(".")
    if package != _PACKAGE_ROOT.name:
        return None
    place = _PACKAGE_ROOT.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _definition(file: Path, name: str) -> ast.expr | ast.ClassDef | ast.FunctionDef | None:
    """Return what a name stands for at the top level of a file: the expression that it is given, a class or a function."""
    return _definitions(file).get(name)


@functools.cache
def _definitions(file: Path) -> dict[str, ast.expr | ast.ClassDef | ast.FunctionDef]:
    found: dict[str, ast.expr | ast.ClassDef | ast.FunctionDef] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


@functools.cache
def _imports(file: Path) -> dict[str, tuple[str, str]]:
    """Return the module and the name there of everything that a file imports; of whole modules the name is empty."""
    found: dict[str, tuple[str, str]] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {one.asname or one.name: (node.module or "", one.name) for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.asname or one.name: (one.name, "") for one in node.names if one.asname or "." not in one.name}
    return found


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
