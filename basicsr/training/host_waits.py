"""Where the host waits for a device, or reads from it: found by looking at every operation of a block of code."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_ON_HOST = ("cpu", "meta")
COPIES = (_aten._to_copy.default, _aten.copy_.default)
LOOKING = {__name__, "basicsr.training.recordable"}
"""Modules that are no places of an operation, beside those of torch."""
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")


@dataclass(frozen=True)
class Wait:
    """A place where the host waits.

    Attributes:
        reason: why, as the end of a sentence that begins with the place.
        operation: what torch was asked for, such as `aten::_local_scalar_dense`.
        place: file, line and function outside of torch.
    """

    reason: str
    operation: str
    place: str

    def __str__(self) -> str:
        return f"{self.place} {self.reason} ({self.operation})"


class HostWaits(TorchDispatchMode):
    """Notes all that makes the host wait for a device while it is entered, in backward passes as well.

    These are reads of a value (`item`, `tolist`, a branch on a tensor), shapes that depend on values (`nonzero`, a boolean mask), copies to
    the host, and copies to the device that are not asynchronous: what `torch.cuda.set_sync_debug_mode` warns of, on any device, and with
    its place. Tensors of the CPU are no reason to wait. Waiting for an event is not an operation, and not noted.

    Attributes:
        waits: what was found, in the order of its occurrence.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []

    @property
    def by_place(self) -> dict[str, int]:
        """How often the host waited at each place."""
        return dict(Counter(str(wait) for wait in self.waits))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if torch.is_inference_mode_enabled():  # what comes as its parts elsewhere comes whole
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        reason = why_host_waits(func, args, kwargs or {})
        if reason is not None:
            self.note(Wait(reason, func.name(), place_of_caller()))
        return func(*args, **(kwargs or {}))

    def note(self, wait: Wait) -> None:
        """Take note of a place before its operation is carried out."""
        self.waits.append(wait)


def why_host_waits(operation: Any, args: Any, kwargs: Mapping[str, Any]) -> str | None:
    """Return why the host waits for a device in an operation, as the end of a sentence; None where it does not.

    Args:
        operation: an overload, such as `torch.ops.aten.nonzero.default`.
        args: its positional arguments.
        kwargs: its other arguments.
    """
    if operation in COPIES:
        return _why_copy_waits(operation, args, kwargs)
    if not any(is_on_device(leaf) for leaf in tree_leaves((args, kwargs))):
        return None
    if operation.name().partition(".")[0] in _INDEXED:
        masks = any(
            leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)
        )
        return "takes a part whose size depends on values" if masks else None
    if torch.Tag.data_dependent_output in operation.tags:
        return "reads a value on the host"
    if torch.Tag.dynamic_output_shape in operation.tags:
        return "needs a shape that depends on values"
    return None


def _why_copy_waits(operation: Any, args: Any, kwargs: Mapping[str, Any]) -> str | None:
    if operation is _aten.copy_.default:
        target, source = args[:2]
        asynchronous = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        to_host, pinned = not is_on_device(target), asynchronous and not is_on_device(target) and target.is_pinned()
    else:
        source, device = args[0], kwargs.get("device")
        asynchronous, pinned = kwargs.get("non_blocking", False), False
        to_host = not is_on_device(source) if device is None else torch.device(device).type in _ON_HOST
    if to_host != is_on_device(source):
        return None  # both are at one place
    if to_host:
        return None if pinned else "copies to the host"
    return None if asynchronous else "copies to the device and waits for it"


def is_on_device(leaf: Any) -> bool:
    """Whether something is a tensor that the host cannot read at once."""
    return isinstance(leaf, Tensor) and leaf.device.type not in _ON_HOST


def place_of_caller() -> str:
    """Return file, line and function of the innermost caller outside of torch and of what looks at its operations."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module not in LOOKING and module.partition(".")[0] != "torch":
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "the backward pass of torch"
