"""Learning rates by iteration and by time, with warm-up."""

import math

import pytest
import torch

from basicsr.training.optimizers import SCHEDULERS, build_optimizer, build_scheduler
from basicsr.training.schedules import TimedCosineSchedule
from basicsr.utils.errors import OptionsError


def rates(options, iterations, total_iter=10, groups=(1.0,)):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in groups]
    optimizer = torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(parameters, groups, strict=True)])
    scheduler = build_scheduler(options, optimizer, total_iter, "train:scheduler")
    seen = []
    for _ in range(iterations):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_a_cosine_ends_with_the_last_iteration():
    seen = rates({"type": "CosineAnnealingLR", "eta_min": 0.1}, 12, groups=(1.0, 10.0))
    for iteration, (first, second) in enumerate(seen):
        share = (1 + math.cos(math.pi * min(iteration, 10) / 10)) / 2
        assert first == pytest.approx(0.1 + 0.9 * share) and second == pytest.approx(0.1 + 9.9 * share)


def test_a_cosine_without_warm_up_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
    for (rate,) in rates({"type": "CosineAnnealingLR", "eta_min": 0.01}, 10, groups=(0.5,)):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_milestones_and_warm_up():
    seen = rates({"type": "MultiStepLR", "milestones": [6, 4], "gamma": 0.5, "warmup_iter": 3}, 8)
    assert [rate for (rate,) in seen] == [0.25, 0.5, 0.75, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_cosine_begins_anew_with_each_period():
    """As in BasicSR, whose rate at the end of a period is the lowest and whose next one begins one iteration later."""
    options = {"type": "CosineAnnealingRestartLR", "periods": [4, 2, 4], "restart_weights": [1, 0.5, 2], "eta_min": 0.1}
    seen = [rate for (rate,) in rates(options, 11)]
    half = math.sqrt(0.5)
    first = [1.0, 0.55 + 0.45 * half, 0.55, 0.55 - 0.45 * half, 0.1]
    last = [0.1 + 0.9 * (1 + half), 1.0, 0.1 + 0.9 * (1 - half), 0.1]
    assert seen == pytest.approx([*first, 0.325, 0.1, *last])


def test_a_cosine_of_one_period_is_the_one_without_restarts():
    with_restarts = rates({"type": "CosineAnnealingRestartLR", "periods": [10], "eta_min": 0.1, "warmup_iter": 3}, 10)
    assert with_restarts == rates({"type": "CosineAnnealingLR", "eta_min": 0.1, "warmup_iter": 3}, 10)


def test_milestones_count_from_the_last_restart_on():
    options = {"type": "MultiStepRestartLR", "milestones": [2, 4, 6, 7], "gamma": 0.5}
    seen = rates({**options, "restarts": [0, 4], "restart_weights": [1, 0.8]}, 9)
    assert [rate for (rate,) in seen] == pytest.approx([1, 1, 0.5, 0.5, 0.8, 0.8, 0.4, 0.2, 0.2])
    assert rates(options, 9) == rates({**options, "type": "MultiStepLR"}, 9)


def test_a_cosine_over_time_follows_the_clock_and_not_the_iterations():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    options = {"type": "CosineOverTime", "minutes": 10.0, "warmup_iter": 1}
    scheduler = build_scheduler(options, optimizer, 5, "train:scheduler")
    assert isinstance(scheduler, TimedCosineSchedule) and optimizer.param_groups[0]["lr"] == 1.0
    for seconds, rate in ((0, 2.0), (300, 1.0), (300, 1.0), (600, 0.0), (700, 0.0)):
        scheduler.seconds = seconds
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    assert scheduler.seconds_left == 0


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_continued_schedule_goes_on_where_it_was(kind):
    options = {"type": kind, "warmup_iter": 2}
    needed = {
        "CosineOverTime": {"minutes": 1.0},
        "CosineAnnealingRestartLR": {"periods": [4, 4], "restart_weights": [1, 0.5]},
    }
    options.update({"milestones": [4]} if kind.startswith("MultiStep") else needed.get(kind, {}))
    options.update({"restarts": [0, 5], "restart_weights": [1, 0.5]} if kind == "MultiStepRestartLR" else {})

    def make():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, build_scheduler(options, optimizer, 8, "train:scheduler")

    (optimizer, scheduler), (other, continued) = make(), make()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    if kind == "CosineOverTime":
        scheduler.seconds = 20.0
    continued.load_state_dict(scheduler.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        for one, schedule in ((optimizer, scheduler), (other, continued)):
            one.step()
            schedule.step()
        assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("options", "own", "following"),
    [
        ({"type": "CosineAnnealingLR", "eta_min": 0.1}, {"total_iter": 10, "eta_min": 0.1}, [0.68906, 0.55, 0.41094]),
        ({"type": "MultiStepLR", "milestones": [5]}, {"milestones": [5], "gamma": 0.5}, [1.0, 0.5, 0.5]),
    ],
)
def test_a_state_of_an_earlier_run_is_continued(options, own, following):
    """Its dictionary is that of torch 2.4: attributes of the schedule, no functions, nothing that torch added later."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(options, optimizer, 10, "train:scheduler")
    common = {"base_lrs": [1.0], "last_epoch": 3, "_step_count": 4, "_get_lr_called_within_step": False}
    scheduler.load_state_dict({**own, "warmup_iter": 0, **common, "_last_lr": [0.8145], "verbose": False})
    for rate in following:
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=1e-5)


def test_options_are_checked():
    parameter = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = build_optimizer({"type": "AdamW", "lr": 1e-3}, parameter, "train:optim_g")
    for options, message in (
        ({"type": "CosineOverTime"}, "minutes"),
        ({"type": "CosineOverTime", "minutes": 0}, "minutes"),
        ({"type": "MultiStepLR", "milestones": [1], "warmup_iter": -1}, "warmup_iter"),
        ({"type": "CosineOvertime", "minutes": 1}, "Did you mean 'CosineOverTime'"),
        ({"type": "CosineAnnealingRestartLR", "periods": [2, 2]}, "weight for each period"),
        ({"type": "CosineAnnealingRestartLR", "periods": [4]}, "over after 4 iterations, but the training has 5"),
        ({"type": "CosineAnnealingRestartLR", "periods": []}, "periods"),
        ({"type": "MultiStepRestartLR", "milestones": [1], "restarts": [0, 2]}, "weight for each restart"),
    ):
        with pytest.raises(OptionsError, match=message):
            build_scheduler(options, optimizer, 5, "train:scheduler")
