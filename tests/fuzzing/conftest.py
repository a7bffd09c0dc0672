"""Inputs made at random, as many as `--fuzz` says; the same ones each time, unless more than the usual number is asked for."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

USUAL = 200

Fuzz = Callable[[SearchStrategy[Any], Callable[[Any], None]], None]


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Give values of a strategy to a check, which raises where one is not met as it should be; the smallest such value is shown."""
    number = request.config.getoption("--fuzz")
    chosen = settings(
        max_examples=number,
        deadline=None,
        derandomize=number <= USUAL,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )

    def run(strategy: SearchStrategy[Any], check: Callable[[Any], None]) -> None:
        @chosen
        @given(strategy)
        def checked(value: Any) -> None:
            check(value)

        checked()

    return run
