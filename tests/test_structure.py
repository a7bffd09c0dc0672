"""The rules of the house: who may import whom, what no file contains, how long files are."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "basicsr"
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES} - {PACKAGE})
# from the bottom to the top; spec and calibration lie side by side
FLOORS_OF_QUANT = {"__init__": 10, "spec": 0, "calibration": 0} | {
    name: height
    for height, name in enumerate(
        ("kernels", "ops", "search", "calibrators", "quantizers", "integers", "modules", "insertion", "observe"),
        start=1,
    )
}
# utils <- {archs, data, losses, metrics, quant} <- networks <- evaluation <- training <- models <- {pipeline, deploy} <- {sweep, interface} <- commands
# {data, metrics, utils} <- reporting <- {pipeline, sweep}; pipeline <- chain <- train
GROUND = {"archs", "data", "losses", "metrics", "quant", "utils"}
MAY_IMPORT = {
    "utils": {"utils"},
    "archs": {"archs", "utils"},
    "data": {"data", "utils"},
    "losses": {"losses", "utils"},
    "metrics": {"metrics", "archs", "utils"},
    "quant": {"quant"},
    "reporting": {"reporting", "data", "metrics", "utils"},
    "networks": {"networks", "archs", "quant", "utils"},
    "evaluation": {"evaluation", "networks", *GROUND},
    "training": {"training", "evaluation", "networks", *GROUND},
    "models": {"models", "training", "evaluation", "networks", *GROUND},
    "deploy": {"deploy", "evaluation", "networks", *GROUND},
    "pipeline": {"reporting", "models", "training", "evaluation", "networks", *GROUND},
    "sweep": {"sweep", "reporting", "evaluation", "networks", *GROUND},
    "report": {"reporting", "utils"},
    "chain": {"pipeline", "utils"},
    "train": {"chain", "utils"},
    "test": {"pipeline", "utils"},
    "export": {"deploy", "quant", "utils"},
    "upscale": {"deploy", "archs", "utils"},
    "interface": {"interface", "deploy", "models", "training", "evaluation", "networks", *GROUND},
    "__init__": {"interface"},
}
KNOWN_TO_QUANT = {"basicsr.utils.registry", "basicsr.utils.errors", "basicsr.utils.compiling"}
FORBIDDEN_CALLS = {"eval", "exec", "print", "input", "breakpoint"}
FORBIDDEN_MODULES = {"torchvision", "pickle", "timm", "basicsr_wheel"}


def imports_of(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "basicsr" else [module]
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_go_downwards(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(file):
        top, *rest = name.split(".")
        assert top not in FORBIDDEN_MODULES, f"{file} imports {name}"
        if top == "basicsr" and rest:
            if room == "quant" and name.startswith("basicsr.utils"):
                assert name in KNOWN_TO_QUANT, (
                    f"{file} imports {name}; quant knows the registry, the errors and the compiler only"
                )
            else:
                assert rest[0] in MAY_IMPORT[room], f"{file} in {room} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_dangerous_or_leftover_calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, f"{file}:{node.lineno} calls {node.func.id}"
            if ast.unparse(node.func) == "torch.load":
                safe = any(keyword.arg == "weights_only" for keyword in node.keywords)
                assert safe, f"{file}:{node.lineno} loads without weights_only=True"
            for keyword in node.keywords:
                unsafe = keyword.arg == "weights_only" and getattr(keyword.value, "value", None) is not True
                assert not unsafe, f"{file}:{node.lineno} loads without weights_only=True"


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "archs"], ids=lambda f: f.name)
def test_architectures_hold_no_quantization_code(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [getattr(node, attribute, None) for attribute in ("id", "attr", "arg", "name")]
        assert not any("quantize" in name.lower() for name in names if isinstance(name, str)), f"{file}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_are_written_whole_or_not_at_all(file):
    """Whatever writes goes through `atomic_path`; the log is appended to."""
    if file.name in ("files.py", "logger.py"):
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    blocks = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.With) and any("atomic_path(" in ast.unparse(item) for item in n.items)
    ]
    guarded = {id(inner) for block in blocks for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            (".write_text", ".write_bytes", "torch.save")
        ):
            assert id(node) in guarded, f"{file}:{node.lineno} writes without atomic_path"


@pytest.mark.parametrize("file", FILES + SCRIPTS, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_and_functions_stay_readable(file):
    """300 lines a file with all that is in it, 50 a function without its docstring: what a reader is told must not be cut short."""
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, f"{file} is too long; split it by concept"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            assert lines <= 50, f"{file}:{node.lineno} {node.name} has {lines} lines; split it by concept"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_every_folder_says_what_it_holds_and_what_it_may_import(folder):
    """In three lines: what lives there, a blank one, what may be imported."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    lines = text.splitlines()
    assert len(lines) <= 4 and lines[0].strip() and "May import " in text, f"{folder}/__init__.py says: {text!r}"


@pytest.mark.parametrize("file", [f for f in FILES if "quant" in f.relative_to(PACKAGE).parts], ids=lambda f: f.name)
def test_floors_of_quant_import_downwards(file):
    floor = file.relative_to(PACKAGE).parts[1].removesuffix(".py")
    for name in imports_of(file):
        if name.startswith("basicsr.quant."):
            other = name.split(".")[2]
            assert FLOORS_OF_QUANT[other] <= FLOORS_OF_QUANT[floor], f"{file} in quant/{floor} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_everything_public_is_documented_and_typed(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if file.name != "__init__.py":
        assert ast.get_docstring(tree), f"{file} has no docstring"
    scopes = [tree, *[n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]]
    for scope in scopes:
        for node in scope.body:
            # the docstring of a module's class may tell what its forward takes and returns
            if (
                isinstance(node, ast.FunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and node.name != "forward"
            ):
                assert ast.get_docstring(node), f"{file}:{node.lineno} {node.name} has no docstring"
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert node.returns is not None, f"{file}:{node.lineno} {node.name} has no return type"
