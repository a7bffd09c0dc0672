"""What an installed package carries: all modules, and the recipes, which lie beside it in a checkout."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

import basicsr
from basicsr.interface.recipes import read_recipe, recipe_files, recipe_folder
from tests import tiny

SOURCES = ("basicsr", "options", "setup.py", "pyproject.toml", "README.md", "LICENSE")
LOOK = """
import json, basicsr
from basicsr.interface.recipes import read_recipe, recipe_folder
print(json.dumps([basicsr.__file__, str(recipe_folder()), {name: read_recipe(name) for name in basicsr.methods()}]))
"""


@pytest.mark.slow
def test_an_installed_package_has_the_recipes_of_the_checkout(tmp_path):
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("setuptools and pip are needed to install the package")
    source, target = tmp_path / "source", tmp_path / "site"
    for name in SOURCES:
        path = tiny.ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, source / name, ignore=ignore) if path.is_dir() else shutil.copy(path, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        target,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=tiny.PATIENCE)
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True, check=True
    )  # fmt: skip
    package, folder, recipes = json.loads(done.stdout)
    assert package.startswith(str(target)) and folder.startswith(str(target))
    assert recipes == {name: read_recipe(name) for name in basicsr.methods()} and len(recipes) > 15
    files = {path.relative_to(source) for path in (source / "basicsr").rglob("*") if path.is_file()}
    assert files <= {path.relative_to(target) for path in (target / "basicsr").rglob("*")}


def test_every_recipe_is_found_by_its_label_and_by_its_file():
    assert recipe_folder() == tiny.ROOT / "options/methods"
    for label, file in recipe_files().items():
        assert read_recipe(label) == read_recipe(file.stem) == read_recipe(label.upper())
    labels = {
        "MinMax",
        "Percentile",
        "DOBI",
        "DBDC",
        "DBDC+Pac",
        "DFSQ",
        "2DQuant revised",
        "BRECQ joint",
        "QDrop",
        "LSQ",
    }
    assert labels <= set(basicsr.methods())
