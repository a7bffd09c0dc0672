"""Who reads what some modules of a network return: quantized layers, or anything else."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass
class Readers:
    """Who reads the output of one module.

    Attributes:
        layers: names of the layers that are called with it.
        others: names of the functions that are called with it outside of these layers, such as `add` of a skip connection.
        shared: those of `layers` that are called with something else besides.
    """

    layers: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)


@torch.no_grad()
def find_readers(
    network: nn.Module, sources: Mapping[str, nn.Module], layers: Mapping[str, nn.Module], x: Tensor
) -> dict[str, Readers]:
    """Run a network and return who reads the outputs of some of its modules.

    A view of an output counts as another reader, for what reads that one is not followed.

    Args:
        network: any network.
        sources: the modules whose outputs are followed, by their names; each returns a tensor.
        layers: the modules whose first argument is looked at, by their names.
        x: input of the network.

    Returns:
        One entry for each source that was called, by its name.
    """
    watch = _Watch()
    with ExitStack() as stack:
        for name, module in sources.items():
            stack.callback(module.register_forward_hook(partial(watch.follow, name)).remove)
        for name, module in layers.items():
            stack.callback(module.register_forward_pre_hook(partial(watch.enter, name)).remove)
            stack.callback(module.register_forward_hook(watch.leave).remove)
        stack.enter_context(watch)
        network(x)
    for readers in watch.found.values():
        readers.shared = [name for name in readers.layers if len(watch.inputs[name]) > 1]
    return watch.found


class _Watch(TorchFunctionMode):
    """Sees every function of torch that a network calls, and which followed tensors it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Readers] = {}
        self.inputs: dict[str, set[str | None]] = {}  # what each layer is called with; None for what is not followed
        self._outputs: dict[int, tuple[str, Tensor]] = {}  # kept, so that no other tensor gets the same id
        self._inside = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._inside and any(True for _ in _tensors([result])):  # a size alone reads no values
            for tensor in _tensors([*args, *(kwargs or {}).values()]):
                name = self._name_of(tensor)
                if name is not None:
                    self._note(self.found[name].others, getattr(func, "__name__", str(func)))
        return result

    def follow(self, name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.found.setdefault(name, Readers())
        self._outputs[id(output)] = name, output

    def enter(self, layer: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._inside += 1
        name = self._name_of(inputs[0])
        self.inputs.setdefault(layer, set()).add(name)
        if name is not None:
            self._note(self.found[name].layers, layer)

    def leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._inside -= 1

    def _name_of(self, tensor: Any) -> str | None:
        return self._outputs[id(tensor)][0] if id(tensor) in self._outputs else None

    @staticmethod
    def _note(names: list[str], name: str) -> None:
        if name not in names:
            names.append(name)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among values, and in tuples and lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
