"""Notice in time that a loss is not finite, and find the tensor that was the first."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.utils.errors import TrainingError


class LossWatch:
    """Brings losses to the host while the device goes on with the gradients, so that looking at them costs no waiting.

    `start` comes before the backward pass, `first_not_finite` after it and before the step of the optimiser: parameters
    then never see a gradient of a loss that is not finite.
    """

    def __init__(self) -> None:
        self._values: Tensor | None = None
        self._names: list[str] = []
        self._copied: Any = None  # torch.cuda.Event

    def start(self, losses: Mapping[str, Tensor]) -> None:
        """Start the copy of losses, scalars on one device."""
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self._names = list(losses)
        if values.is_cuda:
            self._values = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._values = values

    def first_not_finite(self) -> tuple[str, float] | None:
        """Return name and value of the first loss that is not finite, or None."""
        if self._copied is not None:
            self._copied.synchronize()
        assert self._values is not None  # `start` came before
        values = zip(self._names, self._values.tolist(), strict=True)
        return next(((name, value) for name, value in values if not math.isfinite(value)), None)

    def require_finite(self, network: nn.Module, lq: Tensor, remedy: str, *, gradients_follow: bool) -> None:
        """Stop the run if a loss is not finite.

        Args:
            network: what the losses are those of.
            lq: the batch of its inputs that gave them.
            remedy: sentences on what to do about it.
            gradients_follow: the gradients in the parameters are those of these losses, so that they tell nothing and are
                removed, and not those of the step before.

        Raises:
            TrainingError: a loss is not finite; with the first tensor that is not.
        """
        found = self.first_not_finite()
        if found is None:
            return
        if gradients_follow:
            network.zero_grad(set_to_none=True)
        raise TrainingError(f"The loss '{found[0]}' is {found[1]}. {first_not_finite(network, lq)} {remedy}")


class _Found(Exception):
    """Ends the forward pass at the first tensor that is not finite."""


@torch.no_grad()
def first_not_finite(network: nn.Module, lq: Tensor) -> str:
    """Return a sentence that names the first tensor that is not finite: a gradient, an input, a parameter or an activation.

    Gradients are those of the last step, looked at from the end of the network, where the backward pass begins. For
    the others one forward pass is made and ended as soon as there is something to tell.

    Args:
        network: any network.
        lq: a batch of its inputs.
    """
    for name, parameter in reversed(list(network.named_parameters())):
        if parameter.grad is not None and not _is_finite(parameter.grad):
            return f"The first tensor that was not finite is the gradient of '{name}' in the last step."
    if not _is_finite(lq):
        return "The first tensor that is not finite is the input of the network; look at the images."
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(_check_state, name)).remove)
            hooks.callback(module.register_forward_hook(partial(_check_output, name)).remove)
        try:
            network(lq)
        except _Found as found:
            return f"The first tensor that is not finite is {found}."
    return "All activations and parameters, and the gradients of the last step, are finite: the loss itself is out of range."


def _check_state(name: str, module: nn.Module, _inputs: Any) -> None:
    for key, tensor in (*module.named_parameters(name, recurse=False), *module.named_buffers(name, recurse=False)):
        if not _is_finite(tensor):
            raise _Found(f"the {'parameter' if isinstance(tensor, nn.Parameter) else 'buffer'} '{key}'")


def _check_output(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and not _is_finite(output):
        raise _Found(f"the activation that '{name or 'the network'}' ({type(module).__name__}) puts out")


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def parameter_not_finite(network: nn.Module) -> str | None:
    """Return the name of the first parameter that holds a value that is not finite; None where all are. All are read at once."""
    parameters = dict(network.named_parameters())
    finite = torch.stack([torch.isfinite(parameter).all() for parameter in parameters.values()]).tolist()
    return None if all(finite) else list(parameters)[finite.index(False)]
