"""Passes that begin in the middle of a network: whatever had ended before gives what it gave in an earlier pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class _Calls:
    """The calls of one module in a pass: when the first began, when the last ended, and what each returned, if that is kept.

    `versions` are torch's counters of changes in place, as they were when the output was returned.
    """

    began: int
    ended: int = 0
    changes_inputs: bool = False
    outputs: list[Any] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    @property
    def can_be_left_out(self) -> bool:
        """Whether each call returned one tensor, which is kept and which nothing changed since, and changed nothing that it was given."""
        unchanged = [
            isinstance(output, Tensor) and output._version == version
            for output, version in zip(self.outputs, self.versions, strict=True)
        ]
        return not self.changes_inputs and bool(unchanged) and all(unchanged)


class KeptPass:
    """A forward pass whose modules keep what they return, so that later ones with a change at one place are computed from there on.

    To change each of N layers of equal cost once takes half of the time of N passes. Outputs of modules that have others inside, as all
    quantized layers have, stay in memory with this object; single functions are computed again.

    Args:
        network: a network in evaluation mode, whose passes are the same every time.
        x: its input.

    Attributes:
        output: what the network returned.
    """

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        self._network, self._x = network, x
        self._calls: dict[nn.Module, _Calls] = {}
        self._time = 0
        with torch.no_grad(), ExitStack() as hooks:
            for module in network.modules():
                if module is not network:
                    for handle in self._hooks(module):
                        hooks.callback(handle.remove)
            self.output: Tensor = network(x)

    @torch.no_grad()
    def changed_at(self, modules: Iterable[nn.Module]) -> Tensor:
        """Return the output of a pass in which these modules do something else than in the first one, and all others the same."""
        begins = [self._calls[module].began for module in modules if module in self._calls]
        if not begins:  # none of them takes part
            return self.output
        with ExitStack() as stack:
            for module in self._ended_before(min(begins)):
                stack.callback(_restore, module, vars(module).get("forward"))
                module.forward = _in_turn(self._calls[module].outputs)
                # an architecture that computes in parts what nobody looks at must not ask for parts of these
                stack.callback(module.register_forward_hook(_look_on).remove)
            return self._network(self._x)

    def _hooks(self, module: nn.Module) -> list[Any]:
        versions: list[list[int]] = []  # of the inputs of calls that have not ended
        keeps = any(True for _ in module.children())

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._time += 1
            self._calls.setdefault(module, _Calls(self._time))
            versions.append(_versions(inputs, named))

        def leave(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            calls = self._calls[module]
            self._time += 1
            calls.ended = self._time
            calls.changes_inputs |= versions.pop() != _versions(inputs, named)
            if keeps:
                calls.outputs.append(output)
                calls.versions.append(output._version if isinstance(output, Tensor) else 0)

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def _ended_before(self, time: int) -> list[nn.Module]:
        """Return the modules that had ended by then, those that are inside of none of the others."""

        def inside(module: nn.Module) -> Iterator[nn.Module]:
            for child in module.children():
                calls = self._calls.get(child)
                if calls is not None and calls.ended < time and calls.can_be_left_out:
                    yield child
                else:
                    yield from inside(child)

        return list(dict.fromkeys(inside(self._network)))


def _versions(inputs: tuple[Any, ...], named: dict[str, Any]) -> list[int]:
    return [value._version for value in (*inputs, *named.values()) if isinstance(value, Tensor)]


def _look_on(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    """Do nothing: a hook that says that whole tensors are expected, as in the pass that was kept."""


def _in_turn(outputs: list[Any]) -> Callable[..., Any]:
    """Return a forward pass that gives one output after the other."""
    left = iter(outputs)
    return lambda *_inputs, **_named: next(left)


def _restore(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        del module.forward
    else:
        module.forward = forward
