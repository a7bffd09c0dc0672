"""Learning-rate schedules in closed form: the rate is a function of the iteration, or of the time, and of nothing else."""

import bisect
import math
from collections.abc import Sequence

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
    """The rate is multiplied by `gamma` at each milestone, an iteration."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        milestones: Sequence[int],
        gamma: float = 0.5,
        warmup_iter: int = 0,
    ) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, warmup_iter)

    def decayed(self, rate: float) -> float:
        """Return the rate after the milestones that have been passed."""
        return rate * self.gamma ** bisect.bisect_right(self.milestones, self.last_epoch)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
