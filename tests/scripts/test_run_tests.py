"""scripts/run_tests.sh in a small checkout: the linter and the tests decide how it ends, and arguments reach pytest."""

import shutil

import pytest

from tests.scripts.checkouts import checkout_with_environment, run_script

pytestmark = pytest.mark.slow
SCRIPT = "scripts/run_tests.sh"
MODULE = '''"""Doubles."""


def twice(x: int) -> int:
    """Return twice x."""
    return 2 * x


def unused(x: int, y: int) -> int:
    """Return a number that no test asks for."""
    if x > y:
        return x
    if y > 2 * x:
        return y
    return x + y
'''
TEST = '''"""Doubling."""

import subprocess
import sys

import pytest


def test_right():
    subprocess.run([sys.executable, "-c", "from basicsr.numbers import twice; assert twice(2) == 4"], check=True)


@pytest.mark.slow
def test_wrong():
    raise ValueError("the wrong one")
'''


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a package of one file and a test file of its own."""
    folder = checkout_with_environment(tmp_path, "requirements-dev.txt")
    for name in ("basicsr", "docs", "tests"):
        (folder / name).unlink()
        (folder / name).mkdir()
    for below in [child for child in (folder / "scripts").iterdir() if child.is_dir()]:
        shutil.rmtree(below)
    for file in (folder / "scripts").glob("*.py"):
        file.unlink()
    (folder / "scripts/benchmarks").mkdir()
    (folder / "scripts/script.py").write_text('"""A script."""\n')
    (folder / "basicsr/__init__.py").touch()
    (folder / "basicsr/numbers.py").write_text(MODULE)
    (folder / "tests/test_numbers.py").write_text(TEST)
    (folder / "mkdocs.yml").write_text("site_name: Numbers\n")
    (folder / "docs/index.md").write_text("# Numbers\n")
    return folder


def test_a_failing_test_fails_the_script(checkout):
    done = run_script(checkout, SCRIPT)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_markers_choose_tests(checkout):
    done = run_script(checkout, SCRIPT, "-m", "not slow", TEST_WORKERS="1")
    assert done.returncode == 0 and "= 1 passed" in done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_the_linter_fails_the_script(checkout):
    (checkout / "basicsr/numbers.py").write_text(MODULE + "\n\nimport os\n")
    done = run_script(checkout, SCRIPT, "-m", "not slow")
    assert done.returncode == 1 and "F401" in done.stdout and "passed" not in done.stdout


def test_coverage_counts_the_lines_of_other_processes(checkout):
    done = run_script(checkout, SCRIPT, "--coverage", "-m", "not slow")
    assert done.returncode == 0, done.stdout + done.stderr
    (file, lines, missed, share), total = (line.split() for line in done.stdout.splitlines()[-2:])
    assert file == "basicsr/numbers.py" and share == f"{round(100 - 100 * int(missed) / int(lines))}%"
    assert int(missed) == 5 and total[0] == "TOTAL" and "= 1 passed" in done.stdout
