"""Whether a step may be recorded as a CUDA graph: looked at before the recording, so that what forbids it is named with its place.

A recording repeats kernels and nothing else. What the host does between them is done once: a value that it reads, or a number that it
hands to a kernel, stays as it was. Some of this CUDA refuses itself, without a place; some of it, it cannot see.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from basicsr.training.host_waits import COPIES, HostWaits, Wait, is_on_device, place_of_caller
from basicsr.utils.errors import UserError


class RecordingError(UserError):
    """A step does something that a CUDA graph cannot hold."""


def require_recordable(step: Callable[[], object]) -> None:
    """Take a step twice and refuse one that a recording would not repeat.

    Args:
        step: all that would be recorded; it has been taken before, so that its caches are filled.

    Raises:
        RecordingError: the step reads from the device, needs a shape that depends on values, copies between host and device, uses a number
            or random draw of the host, or does something else when it is taken again.
    """
    first, second = _Recordable(), _Recordable()
    for operations in (first, second):
        with operations:
            step()
    changed = next((i for i, (a, b) in enumerate(zip(first.done, second.done)) if a != b), None)  # noqa: B905 -- lengths are compared below
    if changed is not None:
        raise RecordingError(
            f"{second.places[changed]} asks for {second.done[changed][0]} where the pass before asked for {first.done[changed][0]}, "
            "or gives it other numbers: a recording would repeat one of them."
        )
    if len(first.done) != len(second.done):
        raise RecordingError(
            f"one pass has {len(first.done)} operations on the device, the next {len(second.done)}: a recording would repeat one of them."
        )


class _Recordable(HostWaits):
    """Raises at the first operation that cannot be recorded, and notes all others.

    Attributes:
        done: name, shapes and numbers of each operation on the device.
        places: where each was asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, ...]] = []
        self.places: list[str] = []
        self._made_inside: dict[int, Tensor] = {}  # tensors of the host; kept, so that their ids stay theirs

    def note(self, wait: Wait) -> None:
        raise RecordingError(f"{wait}.")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        own = [tensor for tensor in tensors if not is_on_device(tensor)]
        outside = [tensor for tensor in own if id(tensor) not in self._made_inside]
        if len(own) < len(tensors) and outside:
            self._refuse(func, "takes a value from the host, which a recording would repeat")
        result = super().__torch_dispatch__(func, types, args, kwargs)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        on_device = any(map(is_on_device, results))
        if own and func in COPIES and (on_device or len(own) < len(tensors)):
            self._refuse(func, "copies between host and device")
        if on_device or len(own) < len(tensors):
            self.done.append((func.name(), *(tuple(x.shape) if isinstance(x, Tensor) else repr(x) for x in leaves)))
            self.places.append(place_of_caller())
        elif torch.Tag.nondeterministic_seeded in func.tags:
            self._refuse(func, "draws a random number on the host, which a recording would repeat")
        elif not outside:
            self._made_inside.update((id(tensor), tensor) for tensor in results)
        return result

    def _refuse(self, func: Any, reason: str) -> None:
        self.note(Wait(reason, func.name(), place_of_caller()))
