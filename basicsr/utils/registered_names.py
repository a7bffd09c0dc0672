"""What the decorators of registries in a file would register, read as text."""

import ast
import functools
from pathlib import Path


def registered_names(file: Path, variable: str) -> dict[str, str] | None:
    """Return what the decorators `@<variable>.register(...)` in a file would register, without running it.

    Returns:
        The names of classes and functions in the file, by those that they are registered under. None if the file cannot be read
        as Python: its components are missing, but those of other files are not.
    """
    try:
        state = file.stat()
    except OSError:
        return None
    return _names_in(file, variable, (state.st_mtime_ns, state.st_size))


@functools.cache
def _names_in(file: Path, variable: str, _state: tuple[int, int]) -> dict[str, str] | None:
    """Return what `registered_names` does for a file in a state of its contents: checking options asks hundreds of times."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):  # ValueError: no UTF-8, or null bytes
        return None
    names = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Attribute)
                and decorator.func.attr == "register"
                and isinstance(decorator.func.value, ast.Name)
                and decorator.func.value.id == variable
            ):
                given = decorator.args[0] if decorator.args else None
                names[str(given.value) if isinstance(given, ast.Constant) else node.name] = node.name
    return names
