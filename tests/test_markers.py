"""The markers of the tests: each is described, each is used, and the two that can be known are given without a hand."""

import re

import pytest
import torch

from tests import tiny

TESTS = tiny.ROOT / "tests"


def declared() -> set[str]:
    text = (tiny.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^markers = \[\n(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r'^\s*"(\w+): ', block, flags=re.MULTILINE))


def test_every_declared_marker_is_used():
    files = "\n".join(file.read_text(encoding="utf-8") for file in TESTS.rglob("*.py"))
    used = set(re.findall(r"pytest\.mark\.(\w+)", files))
    assert declared() and declared() <= used


def test_the_fixture_gives_the_marker(request, reference):
    assert request.node.get_closest_marker("reference") and reference.is_dir()


@pytest.mark.gpu
def test_a_test_for_gpus_runs_on_one():
    assert torch.cuda.is_available()


def test_nobody_asks_for_a_gpu_in_another_way():
    for file in TESTS.rglob("*.py"):
        by_hand = re.search(r"skipif\([^)]*cuda", file.read_text(encoding="utf-8"))
        assert not by_hand or file.name == "test_markers.py", f"{file} asks for a GPU by skipif: use pytest.mark.gpu."
