"""Optimisers and learning-rate schedules by name; the keyword parameters of a function here are its options.

`fused` optimisers update all parameters in one pass over memory, hundreds of bounds in a single call; `fused: false` is for
devices that torch has no such kernel for.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.optim.lr_scheduler import LRScheduler

from basicsr.training.schedules import CosineSchedule, MultiStepSchedule, TimedCosineSchedule
from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.signature import validate_arguments

Parameters = Iterable[torch.Tensor] | Iterable[dict[str, Any]]  # plain, or in groups with a learning rate each
Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Iterations = Annotated[int, Field(ge=0)]


def _adam_of(
    kind: type[torch.optim.Adam] | type[torch.optim.AdamW], default_decay: float
) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds one of the two Adams, which differ in what weight decay does, and so in its default."""

    def build(
        parameters: Parameters,
        /,
        *,
        lr: Positive,
        betas: tuple[Momentum, Momentum] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NotNegative = default_decay,
        fused: bool = True,
    ) -> torch.optim.Optimizer:
        return kind(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)

    return build


def _cosine(
    optimizer: torch.optim.Optimizer, total_iter: int, /, *, eta_min: NotNegative = 0.0, warmup_iter: Iterations = 0
) -> LRScheduler:
    return CosineSchedule(optimizer, total_iter=max(total_iter, 1), eta_min=eta_min, warmup_iter=warmup_iter)


def _cosine_over_time(
    optimizer: torch.optim.Optimizer,
    _total_iter: int,
    /,
    *,
    minutes: Positive,
    eta_min: NotNegative = 0.0,
    warmup_iter: Iterations = 0,
) -> LRScheduler:
    return TimedCosineSchedule(optimizer, minutes=minutes, eta_min=eta_min, warmup_iter=warmup_iter)


def _multi_step(
    optimizer: torch.optim.Optimizer,
    _total_iter: int,
    /,
    *,
    milestones: list[int],
    gamma: Positive = 0.5,
    warmup_iter: Iterations = 0,
) -> LRScheduler:
    return MultiStepSchedule(optimizer, milestones=milestones, gamma=gamma, warmup_iter=warmup_iter)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": _adam_of(torch.optim.Adam, 0.0),
    "AdamW": _adam_of(torch.optim.AdamW, 0.01),
}
SCHEDULERS: dict[str, Callable[..., LRScheduler]] = {
    "CosineAnnealingLR": _cosine,
    "CosineOverTime": _cosine_over_time,
    "MultiStepLR": _multi_step,
}


def _resolve(
    table: Mapping[str, Callable[..., Any]], options: Mapping[str, Any], where: str
) -> tuple[Any, dict[str, Any]]:
    arguments = dict(options)
    name = arguments.pop("type", None)
    if not isinstance(name, str) or name not in table:
        raise OptionsError(f"Option '{where}:type' is {name!r}. {suggestion(str(name), table)}")
    return table[name], validate_arguments(table[name], arguments, where)


def build_optimizer(options: Mapping[str, Any], parameters: Parameters, where: str) -> torch.optim.Optimizer:
    """Build the optimiser that `{type, lr, ...}` describes over `parameters`; gradients may lie in memory in any order."""
    function, arguments = _resolve(OPTIMIZERS, options, where)
    optimizer = function(parameters, **arguments)
    optimizer.register_step_pre_hook(_lay_out_gradients)
    return optimizer


@torch.no_grad()
def _lay_out_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Give each gradient the strides of its parameter.

    Fused kernels walk through both in the order of memory and take the gradient of one element for that of another where the
    strides differ. `backward` sees to it, but what `torch.autograd.grad` returns for the weight of a convolution is often
    channels last.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


def build_scheduler(
    options: Mapping[str, Any], optimizer: torch.optim.Optimizer, total_iter: int, where: str
) -> LRScheduler:
    """Build the schedule that `{type, ...}` describes.

    `CosineAnnealingLR` ends with the last of `total_iter` iterations, `CosineOverTime` when its minutes of training are over.
    Every schedule can begin with a `warmup_iter`.
    """
    function, arguments = _resolve(SCHEDULERS, options, where)
    return function(optimizer, total_iter, **arguments)
