"""The type checker, with the configuration of the repository, refuses calls that would end in a TypeError."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[1]
CALLS = {
    "right": "most_different(images, 64)",
    "without_an_argument": "most_different(images)",
    "with_an_unknown_name": "most_different(images, side=64)",
}


def test_a_wrong_call_is_reported_in_typed_and_in_untyped_functions(tmp_path):
    functions = [f"def {name}(images):\n    return {call}\n" for name, call in CALLS.items()]
    functions.append(f"def typed(images: list) -> tuple[int, int]:\n    return {CALLS['without_an_argument']}\n")
    file = tmp_path / "calls.py"
    file.write_text("\n".join(["from basicsr.reporting.crops import most_different\n", *functions]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-error-summary", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    reported = {int(line.split(":")[1]) for line in done.stdout.splitlines() if "calls.py:" in line and "error" in line}
    lines = file.read_text(encoding="utf-8").splitlines()
    wrong = {
        number for number, line in enumerate(lines, 1) if "return most_different" in line and "images, 64" not in line
    }
    assert len(wrong) == 3
    assert reported == wrong, done.stdout + done.stderr
