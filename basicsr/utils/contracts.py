"""What a registry asks of its components: the base class that declares their members, each with what it is for."""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_origin

from basicsr.utils.errors import OptionsError


@dataclass(frozen=True)
class Contract:
    """The base class of the components of one registry. It is imported when the first component is loaded.

    Required are its abstract methods, and the attributes that it annotates as `ClassVar` without a value. What a member is
    for is the first sentence of its docstring, or its line in the section `Attributes` of the class.

    Args:
        module: module of the base class.
        name: name of the base class.
        derive: components derive from it. If false, any class with the required methods will do.
    """

    module: str
    name: str
    derive: bool = True

    def require(self, component: Callable[..., Any], kind: str, name: str, file: str) -> None:
        """Refuse a component that breaks the contract.

        Args:
            component: what was registered.
            kind: what the components are, such as `calibrator`, for the message.
            name: under which it was registered.
            file: where it is defined.

        Raises:
            OptionsError: the component does not derive from the base class, or lacks members; names them and says what for.
        """
        base = getattr(importlib.import_module(self.module), self.name)
        derives = inspect.isclass(component) and issubclass(component, base)
        if inspect.isclass(component) and derives:
            lacking, documented = required_members(component), component
        else:
            lacking = [member for member in required_members(base) if not _provides(component, base, member)]
            documented = base
        if not lacking and (derives or not self.derive):
            return
        members = "; ".join(f"'{member}' ({_purpose(documented, member)})" for member in lacking)
        faults = [] if derives or not self.derive else [f"does not derive from {self.module}.{self.name}"]
        faults += [f"lacks {members}"] if lacking else []
        raise OptionsError(
            f"The {kind} '{name}' in the file '{file}' {' and '.join(faults)}. The class {self.name} in {self.module} says what "
            f"each {kind} provides; add what is missing."
        )


def required_members(base: type) -> list[str]:
    """Return the names of what is left to provide: abstract methods, and class variables without a value."""
    abstract = sorted(getattr(base, "__abstractmethods__", ()))
    variables = [
        name
        for ancestor in reversed(base.__mro__)
        for name, annotation in inspect.get_annotations(ancestor).items()
        if _is_class_variable(annotation) and not hasattr(base, name)
    ]
    return [*variables, *(name for name in abstract if name not in variables)]


def _is_class_variable(annotation: Any) -> bool:
    return "ClassVar" in (annotation if isinstance(annotation, str) else str(get_origin(annotation) or annotation))


def _provides(component: Callable[..., Any], base: type, member: str) -> bool:
    """Return whether what does not derive from `base` has a member, and not only one that a common ancestor gives to all."""
    given = inspect.getattr_static(component, member, None)
    if given is None:
        return False
    inherited = (inspect.getattr_static(ancestor, member, None) for ancestor in base.__mro__[1:])
    return all(given is not other for other in inherited)


def _purpose(base: type, member: str) -> str:
    """Return what a member is for, from the documentation of its class."""
    documented = inspect.getdoc(getattr(base, member, None)) if hasattr(base, member) else None
    if not documented:
        lines = "\n".join(inspect.getdoc(ancestor) or "" for ancestor in base.__mro__)
        found = re.search(
            rf"^ +{re.escape(member)}: (.+?)(?=\n *\w[\w, ]*: |\n\S|\n\n|\Z)", lines, re.MULTILINE | re.DOTALL
        )
        documented = found.group(1) if found else "required"
    sentence = " ".join(documented.split("\n\n")[0].split())
    return sentence.split(". ")[0].rstrip(".")
