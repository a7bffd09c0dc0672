import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def load_module(file: Path) -> ModuleType:
    """Import a file that lies in no package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load_benchmark() -> Callable[[str], ModuleType]:
    """Import a benchmark by its name."""
    return lambda name: load_module(SCRIPTS / f"benchmarks/{name}_benchmark.py")


@pytest.fixture
def load_script() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script by its name."""

    yield lambda name: load_module(SCRIPTS / f"{name}.py")
    for name in [script.stem for script in SCRIPTS.glob("*.py")]:
        sys.modules.pop(name, None)


@pytest.fixture
def script_command() -> Callable[..., subprocess.CompletedProcess]:
    """Run a script as a user does: as a program, from another folder, the package not installed."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", env={**os.environ, "PYTHONPATH": ""})

    return run


@pytest.fixture
def prepare_data(capsys, load_script):
    """Run prepare_data.py in this process; return what it prints and complains about."""
    script = load_script("prepare_data")

    def run(*arguments, code=0):
        try:
            result = script.main([*map(str, arguments), "--workers", "1"])
        except SystemExit as refusal:  # of the command line
            result = refusal.code
        printed = "".join(capsys.readouterr())
        assert result == code, printed
        return printed

    return run
