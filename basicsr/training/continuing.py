"""Whether a training can go on with another length, or another schedule, than it began with."""

from collections.abc import Mapping
from typing import Any

import torch

from basicsr.training.optimizers import build_scheduler
from basicsr.training.schedules import TimedCosineSchedule
from basicsr.utils.errors import OptionsError


def same_rates_so_far(before: Mapping[str, Any], now: Mapping[str, Any], iterations: int) -> bool:
    """Whether two trainings had the same learning rates in their first iterations.

    If so, one can go on as the other: it has the bits that it would have, had it been meant so from the start.

    Args:
        before, now: sections `train`, with `total_iter` and `scheduler`.
        iterations: how many.
    """
    try:
        return _rates(before, iterations) == _rates(now, iterations)
    except OptionsError:  # the earlier one is not known any more
        return False


def _rates(train: Mapping[str, Any], iterations: int) -> list[Any]:
    """Return the rates of the first iterations; every schedule is linear in the initial rate, so that two of them tell it."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 2.0)]
    schedule = build_scheduler(train["scheduler"], torch.optim.SGD(groups), train["total_iter"], "train:scheduler")
    if isinstance(schedule, TimedCosineSchedule):
        return [schedule.minutes, schedule.eta_min, schedule.warmup_iter]
    rates = []
    for iteration in range(iterations):
        schedule.last_epoch = iteration
        rates.append(schedule.get_lr())
    return rates


def refusal(
    before: Mapping[str, Any], now: Mapping[str, Any], iterations: int, *, one_schedule: bool, allowed: bool
) -> str | None:
    """Return why a training does not go on with another length or schedule, a full sentence with the remedy; None where it does.

    Args:
        before: section `train` that it began with.
        now: section `train` that it is to go on with.
        iterations: taken so far.
        one_schedule: whether `total_iter` and `scheduler` decide the learning rate and nothing else.
        allowed: whether the user wants it in any case (`train:allow_new_length`).
    """
    if now["total_iter"] < iterations:
        return f"It has had {iterations} iterations already, more than 'train:total_iter' {now['total_iter']}. Ask for more."
    if not one_schedule:
        return "Its stages share the iterations, so that those that are done would have been others. Start a run of another name."
    if allowed or same_rates_so_far(before, now, iterations):
        return None
    return (
        f"The learning rates of its {iterations} iterations would have been others. With train:allow_new_length=true it goes on all the "
        "same, with the rates of the new length from here on; or start a run of another name."
    )
