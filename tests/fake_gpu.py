"""A device that is not the CPU, on machines that have no other: tensors on it have shapes and types, and no values.

It tells what a GPU would tell late: tensors of two devices in one operation, and reads by the host, which make a GPU wait. Both raise.
"""

import sys
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils import backend_registration

NAME = "fakegpu"
REGISTER = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
"""Absent before torch 2.10."""
WAITS = (torch._subclasses.fake_tensor.DataDependentOutputException, DynamicOutputShapeException)
"""Raised where the host asks for a value on the device."""


class _Module:
    """What torch asks of the module of a device."""

    is_available = staticmethod(lambda: False)  # nobody is to choose this device without being told to
    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


class FakeGPU:
    """The device, and tensors and modules on it."""

    def __init__(self) -> None:
        if not hasattr(torch, NAME):
            assert REGISTER is not None
            REGISTER(NAME, _Module())
        self.device = torch.device(NAME)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)  # what is on the CPU stays there

    @staticmethod
    def forget() -> None:
        """Empty the caches of the package, which may hold tensors of a device that is gone."""
        for name, module in list(sys.modules.items()):
            for value in list(vars(module).values()) if name.startswith("basicsr.") else ():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()

    def move(self, *modules: nn.Module) -> dict[int, nn.Parameter]:
        """Put all parameters and buffers of modules on the device; shared ones stay shared.

        Returns:
            The new parameters by the identity of the old ones, for optimisers.
        """
        moved: dict[int, Any] = {}
        for part in nn.ModuleList(modules).modules():
            for kind in (part._parameters, part._buffers):
                for name, tensor in list(kind.items()):
                    if tensor is not None and tensor.device.type != NAME:
                        kind[name] = moved.setdefault(id(tensor), self._moved(tensor))
        return moved

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        detached = tensor.detach()
        with self.mode:
            fake = self.mode.from_tensor(detached).to(self.device)
            return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake

    def move_optimizer(self, optimizer: torch.optim.Optimizer, moved: dict[int, nn.Parameter]) -> None:
        """Let an optimiser without state step the parameters on the device."""
        for group in optimizer.param_groups:
            group["params"] = [moved[id(parameter)] for parameter in group["params"]]
