"""What all tests share: the reference data beside the checkout, one thread for each worker, warnings that come once, the same examples in every run, what the markers mean."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from basicsr.utils.logger import warn_once
from faults.small_runs import leave_out_reports

SHARED = Path(__file__).resolve().parents[2] / "shared"
REFERENCE = SHARED / "reference"

hypothesis.settings.register_profile("repeatable", derandomize=True)  # --hypothesis-profile default draws others
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the length of the tests with random inputs be chosen; 10,000 takes an hour or so."""
    parser.addoption("--fuzz", type=int, default=200, metavar="N", help="random inputs of each test in tests/fuzzing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the data beside the checkout, and skip what needs a GPU where there is none."""
    for item in items:
        if {"reference", "shared"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.reference)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warn_once.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def _without_reports(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave out the page that ends a run, but where a module is about it."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("reports"):
            leave_out_reports(patch.setattr)
        yield


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of inputs and outputs of the public implementations; tests that ask for it are skipped where it is absent."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the reference data is not at {REFERENCE}")
    return REFERENCE


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with images and weights beside the checkout; tests that ask for it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared data is not at {SHARED}")
    return SHARED
