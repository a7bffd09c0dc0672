"""A bound on the size of networks that a file describes, so that a description that lies ends in a sentence and not in a full memory.

Tensors and modules are counted as they are registered, which is before values are put into large ones: until then the system has
given an address, and no memory.
"""

import contextlib
import re
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from basicsr.utils.errors import UserError

_FACTOR = (
    4  # between what a file holds and what its network may take, which has modules, and buffers that are not stored
)


@dataclass(frozen=True)
class Bound:
    """The most that a network may take.

    Attributes:
        values: of its parameters and buffers.
        objects: parameters, buffers and modules.
    """

    values: int = 1 << 26
    objects: int = 1 << 16

    def around(self, values: int, tensors: int) -> "Bound":
        """Return a bound for a network that is filled from so many values in so many tensors: in proportion, or this one if it is larger."""
        return Bound(max(_FACTOR * values, self.values), max(_FACTOR * tensors, self.objects))

    def around_tensors(self, tensors: Collection[Tensor]) -> "Bound":
        """Return `around` of these tensors."""
        return self.around(sum(tensor.numel() for tensor in tensors), len(tensors))


USUAL = Bound()
"""What networks take that are really used; up to here, options that do not fit a file are compared with it one by one."""
SMALL = Bound(1 << 20, 1 << 10)
"""What is allowed whatever a file holds."""


class TooLargeError(UserError):
    """A network that is being built takes more than it may; the message is a full sentence."""


@contextlib.contextmanager
def within(bound: Bound) -> Iterator[None]:
    """Count the parameters, buffers and modules that this thread registers in the block.

    Raises:
        TooLargeError: they are more than the bound allows, or of a size for which there is not even an address.
    """
    try:
        with _counted(bound):
            yield
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, MemoryError) or re.search("memory|overflow", str(error), re.IGNORECASE):
            raise TooLargeError(_too_large(bound)) from error
        raise


@contextlib.contextmanager
def _counted(bound: Bound) -> Iterator[None]:
    values, objects, thread = 0, 0, threading.get_ident()

    def count(_owner: nn.Module, _name: str, registered: Any) -> None:
        nonlocal values, objects
        if threading.get_ident() != thread:
            return
        objects += 1
        values += registered.numel() if isinstance(registered, Tensor) else 0
        if values > bound.values or objects > bound.objects:
            raise TooLargeError(_too_large(bound))

    with contextlib.ExitStack() as stack:
        for register in (
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
            hooks.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield


def _too_large(bound: Bound) -> str:
    return (
        f"The network is far larger than the file that it is to be filled from: it takes more than {bound.values:,} values, or more "
        f"than {bound.objects:,} modules and tensors."
    )
