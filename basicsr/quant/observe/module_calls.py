"""Single modules inside a network: what they are called with, what they return, and the gradient at their output."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import suggestion

Arguments = dict[int | str, Any]
"""What a module is called with: by position, under its number (0, 1, ..), or by name."""


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: the arguments, and what it returned."""

    arguments: Arguments
    output: Any

    @property
    def tensors(self) -> dict[int | str, Tensor]:
        """The arguments that are tensors."""
        return {key: value for key, value in self.arguments.items() if isinstance(value, Tensor)}

    @property
    def constants(self) -> Arguments:
        """The other arguments, such as sizes."""
        return {key: value for key, value in self.arguments.items() if not isinstance(value, Tensor)}


def call_module(module: nn.Module, arguments: Arguments) -> Any:
    """Call a module with arguments by position and by name."""
    positions = sorted(key for key in arguments if isinstance(key, int))
    keywords = {key: value for key, value in arguments.items() if isinstance(key, str)}
    return module(*(arguments[position] for position in positions), **keywords)


class _Reached(Exception):  # noqa: N818 -- no error: ends a forward pass whose rest is not needed
    """A forward pass has come to the module that it was for."""


@contextmanager
def observe_calls(
    network: nn.Module, module_names: Iterable[str], callback: Callable[[str, ModuleCall], None]
) -> Iterator[None]:
    """Report each call of some modules of a network when it has returned.

    Args:
        network: any network.
        module_names: full names of modules.
        callback: gets the name of the module and the call.

    Raises:
        QuantizationError: there is no module of that name.
    """
    with ExitStack() as hooks:
        for name in module_names:

            def report(
                _module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any, name: str = name
            ) -> None:
                arguments: dict[int | str, Any] = dict(enumerate(inputs))
                arguments.update(keywords)
                callback(name, ModuleCall(arguments, output))

            module = find_module(network, name)
            hooks.callback(module.register_forward_hook(report, with_kwargs=True).remove)
        yield


def first_inputs(network: nn.Module, module_names: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """Run a network and return the first argument of the first call of some of its modules, detached, by their names.

    Args:
        network: any network.
        module_names: full names; one that is not called is left out.
        x: input of the network.

    Raises:
        QuantizationError: there is no module of that name.
    """
    inputs: dict[str, Tensor] = {}
    with torch.no_grad(), ExitStack() as hooks:
        for name in module_names:

            def keep(_module: nn.Module, arguments: tuple[Any, ...], name: str = name) -> None:
                inputs.setdefault(name, arguments[0].detach().clone())  # a later layer may change it in place

            hooks.callback(find_module(network, name).register_forward_pre_hook(keep).remove)
        network(x)
    return inputs


def capture_call(network: nn.Module, module_name: str, x: Tensor) -> ModuleCall:
    """Run a network up to and with one of its modules and return the call of that one; the rest is not computed.

    Args:
        network: any network that calls the module.
        module_name: full name of the module.
        x: input of the network.

    Raises:
        QuantizationError: there is no module of that name, or the network does not call it.
    """
    calls = []

    def stop(_name: str, call: ModuleCall) -> None:
        calls.append(call)
        raise _Reached

    with observe_calls(network, [module_name], stop):
        try:
            network(x)
        except _Reached:
            return calls[0]
    raise QuantizationError(
        f"The network does not call its module '{module_name}', so it cannot be treated as a block."
    )


def gradient_at_output(network: nn.Module, module_name: str, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient of a loss on a network's output with respect to the output of one of its modules.

    Args:
        network: a network that calls the module once; its parameters should not require gradients.
        module_name: full name of a module that returns a tensor.
        x: input of the network.
        loss: makes a scalar of the output of the network.

    Returns:
        The gradient, in the shape of the module's output.

    Raises:
        QuantizationError: there is no module of that name.
    """
    outputs: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[0]

    hook = find_module(network, module_name).register_forward_hook(cut)
    try:
        with torch.enable_grad():
            return torch.autograd.grad(loss(network(x)), outputs[0])[0]
    finally:
        hook.remove()


def find_module(network: nn.Module, name: str) -> nn.Module:
    """Return the module of a name.

    Raises:
        QuantizationError: there is none; names the nearest one.
    """
    modules = dict(network.named_modules())
    if name not in modules:
        raise QuantizationError(f"The network has no module '{name}'. {suggestion(name, modules)}")
    return modules[name]
