"""A second device, with values, on machines that have none: its tensors are kept in memory that the CPU computes on.

A step on it takes the way that it takes on a GPU, decides by real values, and must end with the bits of the CPU. What mixes two devices
raises, as it does on a GPU. The device has a name of its own, or `cuda` where `cuda_without_a_gpu` was loaded before.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from basicsr.training.host_waits import LOOKING
from tests.devices.cuda_without_a_gpu import LIBRARY

LOOKING.add(__name__)
IS_CUDA = LIBRARY in os.environ
NAME = "cuda" if IS_CUDA else "second"
REGISTER = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
skipped = pytest.mark.skipif(
    not IS_CUDA and REGISTER is None, reason="torch registers devices of one's own from version 2.10 on"
)
_COPY, _TO = torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default


class _Module:
    """What torch asks of the module of a device."""

    is_available = staticmethod(lambda: False)  # nobody is to choose this device without being told to
    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


class DeviceTensor(torch.Tensor):
    """A tensor on the second device; `values` are a tensor of the CPU with the same shape and strides."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "DeviceTensor":
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        with torch.inference_mode(False):  # whose tensors could be no views of parameters
            tensor = torch.Tensor._make_wrapper_subclass(cls, values.shape, device=f"{NAME}:0", **layout)
        tensor.values = values
        return tensor

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Go into files as tensors of a GPU do that are read with `map_location="cpu"`."""
        return self.values.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """Return the values as lists, which torch refuses for tensors of a class of one's own."""
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"DeviceTensor({self.values})"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(function, args, dict(kwargs or {}))


class SecondDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on the device and brought there."""

    def __init__(self) -> None:
        super().__init__()
        self._before: list[bool] = []  # it is entered again for the parts of an operation
        if not IS_CUDA and not hasattr(torch, NAME):  # once in a process, and before its first backward pass
            assert REGISTER is not None
            REGISTER(NAME, _Module())
        self.device = torch.device(NAME, 0)

    def __enter__(self) -> "SecondDevice":
        self._before.append(torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # `torch.tensor` makes its tensor on the CPU, and then brings it to the device
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before.pop())
        super().__exit__(*exception)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.is_inference_mode_enabled():  # what others see as its parts comes here whole
            with self:
                result = function.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return computed(function, args, dict(kwargs or {}))


def computed(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU; its result is on the device where one of its tensors is, or where it is told to be."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    inside = {id(tensor.values): tensor for tensor in tensors if isinstance(tensor, DeviceTensor)}
    told = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if not inside and told != NAME:
        return function(*args, **kwargs)
    if function not in (_COPY, _TO):
        _require_one_device(function, tensors)
    _require_own_generator(function, kwargs.get("generator"))
    with torch.inference_mode(False):
        result = function(
            *tree_map(_values, args), **tree_map(_values, {**kwargs, **({"device": "cpu"} if told else {})})
        )
    if function is _COPY:
        return args[0]
    if told not in (None, NAME):
        return result
    if function is _TO and any(result is tensor for tensor in tensors):
        result = result.clone()
    return tree_map(lambda leaf: inside[id(leaf)] if id(leaf) in inside else _wrapped(leaf), result)


def _values(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, DeviceTensor) else leaf


def _wrapped(leaf: Any) -> Any:
    return DeviceTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf


def _require_one_device(function: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse what a GPU refuses; a single number of the CPU may go with tensors of any device."""
    others = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.dim()]
    if others:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but '{function}' got one on {others[0].device} beside those on {NAME}."
        )


def _require_own_generator(function: Any, generator: torch.Generator | None) -> None:
    """Refuse to draw on the device with numbers of the CPU, as a GPU does."""
    if generator is not None and generator.device.type != NAME:
        raise RuntimeError(
            f"Expected a '{NAME}' device type for generator but found '{generator.device.type}' in '{function}'."
        )
