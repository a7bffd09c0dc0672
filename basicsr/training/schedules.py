"""Learning-rate schedules in closed form: the rate is a function of the iteration, or of the time, and of nothing else."""

import bisect
import inspect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler


class _Schedule(LRScheduler):
    """A schedule whose rates rise in a straight line over the first `warmup_iter` iterations, to what `decayed` says.

    Iteration k (from 0) of the rise has the share (k + 1) / (warmup_iter + 1).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_iter: int) -> None:
        self.warmup_iter = warmup_iter
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each group of parameters for the next iteration."""
        share = min(1.0, (self.last_epoch + 1) / (self.warmup_iter + 1))
        return [share * self.decayed(float(rate)) for rate in self.base_lrs]

    def decayed(self, rate: float) -> float:
        """Return what has become of a group's initial learning rate."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the iteration of a state; the options stay those of this schedule, and so do the rates that follow from them."""
        own = inspect.signature(type(self).__init__).parameters
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in own})
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


class CosineSchedule(_Schedule):
    """Half a cosine from the initial rate to `eta_min` at the end of `total_iter` iterations (SGDR, arXiv 1608.03983, equation 5)."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, total_iter: int, eta_min: float = 0.0, warmup_iter: int = 0
    ) -> None:
        self.total_iter = total_iter
        self.eta_min = eta_min
        super().__init__(optimizer, warmup_iter)

    def decayed(self, rate: float) -> float:
        """Return the rate of the cosine at the present iteration."""
        return _half_cosine(rate, self.eta_min, self.last_epoch / self.total_iter)


class CosineRestartSchedule(_Schedule):
    """Half a cosine over each period, one after the other, as BasicSR's `CosineAnnealingRestartLR` has it.

    With r the iteration at which a period of p iterations begins and w its weight, the rate at iteration k in r < k <= r + p is
    eta_min + w (rate - eta_min) (1 + cos(pi (k - r) / p)) / 2. So a period ends with `eta_min`, and the next one begins an
    iteration later, just below its top. Iteration 0 belongs to the first period.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        periods: Sequence[int],
        restart_weights: Sequence[float],
        eta_min: float = 0.0,
        warmup_iter: int = 0,
    ) -> None:
        self.periods = list(periods)
        self.restart_weights = list(restart_weights)
        self.eta_min = eta_min
        super().__init__(optimizer, warmup_iter)

    def decayed(self, rate: float) -> float:
        """Return the rate of the cosine of the present period; past the last one, that of its end."""
        ends = list(itertools.accumulate(self.periods))
        place = min(bisect.bisect_left(ends, self.last_epoch), len(ends) - 1)
        progress = (self.last_epoch - ends[place] + self.periods[place]) / self.periods[place]
        top = self.eta_min + self.restart_weights[place] * (rate - self.eta_min)
        return _half_cosine(top, self.eta_min, progress)


class TimedCosineSchedule(_Schedule):
    """Half a cosine over a budget of time instead of iterations; the training loop keeps `seconds` up to date.

    Attributes:
        seconds: time spent in training so far, earlier pieces of the run included.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, minutes: float, eta_min: float = 0.0, warmup_iter: int = 0
    ) -> None:
        self.minutes = minutes
        self.eta_min = eta_min
        self.seconds = 0.0
        super().__init__(optimizer, warmup_iter)

    @property
    def seconds_left(self) -> float:
        """What is left of the budget; training ends at 0."""
        return max(0.0, 60 * self.minutes - self.seconds)

    def decayed(self, rate: float) -> float:
        """Return the rate of the cosine at the present time."""
        return _half_cosine(rate, self.eta_min, self.seconds / (60 * self.minutes))


class MultiStepSchedule(_Schedule):
    """The rate is multiplied by `gamma` at each milestone, an iteration; as BasicSR's `MultiStepRestartLR` it can begin anew.

    At each restart, an iteration, the rate is the initial one times the weight of the restart. Milestones up to then, also one at
    the same iteration, count no more. A restart at 0 with a weight other than 1 changes the rate of the beginning.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        milestones: Sequence[int],
        gamma: float = 0.5,
        restarts: Sequence[int] = (0,),
        restart_weights: Sequence[float] = (1.0,),
        warmup_iter: int = 0,
    ) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        self.restarts = dict(sorted(zip(restarts, restart_weights, strict=True)))
        super().__init__(optimizer, warmup_iter)

    def decayed(self, rate: float) -> float:
        """Return the rate after the milestones that have been passed since the last restart."""
        passed = [restart for restart in self.restarts if restart <= self.last_epoch]
        start, weight = (passed[-1], self.restarts[passed[-1]]) if passed else (-1, 1.0)
        before = bisect.bisect_right(self.milestones, start)
        return rate * weight * self.gamma ** (bisect.bisect_right(self.milestones, self.last_epoch) - before)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
