"""Optimisers and learning-rate schedules by the names of torch and BasicSR; the keyword parameters of what stands here are options.

`fused` optimisers update all parameters in one pass over memory, hundreds of bounds in a single call; `fused: false` is for
devices that torch has no such kernel for.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.optim.lr_scheduler import LRScheduler

from basicsr.training.muon import Muon
from basicsr.training.schedules import (
    CosineRestartSchedule,
    CosineSchedule,
    MultiStepSchedule,
    TimedCosineSchedule,
)
from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.signature import validate_arguments

Parameters = Iterable[torch.Tensor] | Iterable[dict[str, Any]]  # plain, or in groups with a learning rate each
Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Iterations = Annotated[int, Field(ge=0)]


_TYPES: dict[str, Any] = {
    "lr": Positive,
    "betas": tuple[Momentum, Momentum],
    "eps": Positive,
    "weight_decay": NotNegative,
    "amsgrad": bool,
    "fused": bool,
    "momentum": Momentum,
    "dampening": NotNegative,
    "nesterov": bool,
    "alpha": Momentum,
    "centered": bool,
    "lambd": NotNegative,
    "t0": NotNegative,
    "rho": Momentum,
    "lr_decay": NotNegative,
    "initial_accumulator_value": NotNegative,
    "momentum_decay": NotNegative,
    "decoupled_weight_decay": bool,
    "etas": tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]],
    "step_sizes": tuple[Positive, Positive],
}
"""Types and ranges of the options of torch's optimisers, which have the same meaning in all of them."""
_OWN_DEFAULTS = {"lr": inspect.Parameter.empty, "fused": True}
"""Where they are not those of torch: the learning rate is always said."""


def _stating(kind: Callable[..., torch.optim.Optimizer], *options: str) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds such an optimiser, with a signature that states its options with their types and defaults."""

    def build(parameters: Parameters, /, **arguments: Any) -> torch.optim.Optimizer:
        return kind(parameters, **arguments)

    given = inspect.signature(kind).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    stated = [
        inspect.Parameter(name, keyword, default=_OWN_DEFAULTS.get(name, given[name].default), annotation=_TYPES[name])
        for name in options
    ]
    positional = inspect.Parameter("parameters", inspect.Parameter.POSITIONAL_ONLY)
    build.__signature__ = inspect.Signature([positional, *stated])  # type: ignore[attr-defined]  # functions take it
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


def _cosine_with_restarts(
    optimizer: torch.optim.Optimizer,
    total_iter: int,
    /,
    *,
    periods: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)],
    restart_weights: list[NotNegative] = [1.0],  # noqa: B006 -- never changed
    eta_min: NotNegative = 0.0,
    warmup_iter: Iterations = 0,
) -> LRScheduler:
    if len(restart_weights) != len(periods):
        raise OptionsError(
            f"Option 'restart_weights' of CosineAnnealingRestartLR has {len(restart_weights)} entries and 'periods' has "
            f"{len(periods)}. Give a weight for each period."
        )
    if sum(periods) < total_iter:
        raise OptionsError(
            f"The periods {periods} of CosineAnnealingRestartLR are over after {sum(periods)} iterations, but the training has "
            f"{total_iter}. Add periods, or lower train:total_iter."
        )
    return CosineRestartSchedule(
        optimizer, periods=periods, restart_weights=restart_weights, eta_min=eta_min, warmup_iter=warmup_iter
    )


def _multi_step(
    optimizer: torch.optim.Optimizer,
    _total_iter: int,
    /,
    *,
    milestones: list[int],
    gamma: Positive = 0.5,
    restarts: list[Iterations] = [0],  # noqa: B006 -- never changed
    restart_weights: list[NotNegative] = [1.0],  # noqa: B006
    warmup_iter: Iterations = 0,
) -> LRScheduler:
    if len(restart_weights) != len(restarts):
        raise OptionsError(
            f"Option 'restart_weights' of MultiStepLR has {len(restart_weights)} entries and 'restarts' has {len(restarts)}. "
            "Give a weight for each restart."
        )
    return MultiStepSchedule(
        optimizer,
        milestones=milestones,
        gamma=gamma,
        restarts=restarts,
        restart_weights=restart_weights,
        warmup_iter=warmup_iter,
    )


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adadelta": _stating(torch.optim.Adadelta, "lr", "rho", "eps", "weight_decay"),
    "Adagrad": _stating(torch.optim.Adagrad, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
    "Adam": _stating(torch.optim.Adam, "lr", "betas", "eps", "weight_decay", "amsgrad", "fused"),
    "AdamW": _stating(torch.optim.AdamW, "lr", "betas", "eps", "weight_decay", "amsgrad", "fused"),
    "Adamax": _stating(torch.optim.Adamax, "lr", "betas", "eps", "weight_decay"),
    "ASGD": _stating(torch.optim.ASGD, "lr", "lambd", "alpha", "t0", "weight_decay"),
    "Muon": _stating(Muon, "lr", "momentum", "betas", "eps"),
    "NAdam": _stating(
        torch.optim.NAdam, "lr", "betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay"
    ),
    "RAdam": _stating(torch.optim.RAdam, "lr", "betas", "eps", "weight_decay", "decoupled_weight_decay"),
    "RMSprop": _stating(torch.optim.RMSprop, "lr", "alpha", "eps", "weight_decay", "momentum", "centered"),
    "Rprop": _stating(torch.optim.Rprop, "lr", "etas", "step_sizes"),
    "SGD": _stating(torch.optim.SGD, "lr", "momentum", "dampening", "weight_decay", "nesterov"),
}
"""Those of torch that need nothing but gradients (LBFGS calls the network itself, SparseAdam needs sparse gradients), and `Muon`."""
SCHEDULERS: dict[str, Callable[..., LRScheduler]] = {
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingRestartLR": _cosine_with_restarts,
    "CosineOverTime": _cosine_over_time,
    "MultiStepLR": _multi_step,
    "MultiStepRestartLR": _multi_step,
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
    """Build the optimiser that `{type, lr, ...}` describes over `parameters`; gradients may lie in memory in any order.

    Raises:
        OptionsError: there is no such optimiser, or its options do not go together.
    """
    function, arguments = _resolve(OPTIMIZERS, options, where)
    try:
        optimizer = function(parameters, **arguments)
    except ValueError as error:  # such as Nesterov's rule without momentum, which torch refuses
        raise OptionsError(
            f"The optimiser of '{where}' is refused by torch: {str(error).rstrip('.')}. Correct it."
        ) from error
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
    The schedules with restarts are BasicSR's. Every schedule can begin with a `warmup_iter`.
    """
    function, arguments = _resolve(SCHEDULERS, options, where)
    return function(optimizer, total_iter, **arguments)
