"""Checkouts for the shell scripts: links to the real one, and an environment that is the one the tests run in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import tiny

RUNS = ("basicsr", "docs", "keydata", "options", "tests", "pyproject.toml")


def checkout_with_environment(folder: Path, requirements: str) -> Path:
    """Make a checkout in a folder whose .venv has everything that one of the requirements files names."""
    shutil.copytree(tiny.ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*RUNS, *(f.name for f in tiny.ROOT.glob("requirements*.txt"))):
        os.symlink(tiny.ROOT / file, folder / file)
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for program, start in {"python": "", "ruff": " -m ruff", "mypy": " -m mypy", "mkdocs": " -m mkdocs"}.items():
        (programs / program).write_text(f'#!/bin/sh\nexec {sys.executable}{start} "$@"\n')
        (programs / program).chmod(0o755)
    # as scripts/environment.sh leaves it: what it finds installed it does not touch
    torch = "torch==2.13.0"
    wanted = subprocess.run(["bash", "-c", f"cat requirements*.txt; echo {torch}"], cwd=folder, capture_output=True)
    (folder / f".venv/.installed-{requirements}").write_bytes(wanted.stdout)
    return folder


def run_script(folder: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a shell script of a checkout as a user does."""
    everything = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", str(folder / script), *arguments]
    return subprocess.run(command, cwd="/", env=everything, capture_output=True, text=True, timeout=tiny.PATIENCE)
