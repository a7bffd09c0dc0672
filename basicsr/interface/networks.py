"""What the interface has to know of a network that says nothing of itself: a copy to work on, its scale, the order of its layers."""

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

from basicsr.archs import base
from basicsr.quant.insertion.coverage import PRESETS
from basicsr.quant.insertion.selection import select_modules
from basicsr.quant.spec import MAX_BITS, QuantizationError
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.registry import QMODULE_REGISTRY

_PROBE_SIDE = 64


class EnlargingNetwork(base.SRNetwork):
    """A network with what evaluation and export ask of one: its scale factor and the sizes that it takes.

    Args:
        network: maps (n, 3, h, w) to (n, 3, h * scale, w * scale).
        scale: its scale factor.
        size_multiple: heights and widths that it takes are multiples of this.
    """

    def __init__(self, network: nn.Module, scale: int, size_multiple: int) -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        self.scale = scale
        self.size_multiple = size_multiple

    def forward(self, x: Tensor) -> Tensor:
        """Return images (n, 3, h, w) with values 0..1 enlarged to (n, 3, h * scale, w * scale), not clipped."""
        return self.network(x)

    def for_any_size(self) -> nn.Module:
        """Return the network in the form that can be traced for images of any size."""
        return base.for_any_size(self.network)


@dataclass(frozen=True)
class Probe:
    """What a forward pass shows of a network.

    Attributes:
        scale: its scale factor.
        output: what it returns, (n, 3, h * scale, w * scale).
        calls: how often it calls each of its modules, by name, in the order of the first calls.
        features: names of the modules that it calls once and that return a tensor of the batch.
    """

    scale: int
    output: Tensor
    calls: Mapping[str, int]
    features: frozenset[str]


def plain_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode and float32, on its device; the network stays as it is.

    `DataParallel` and `torch.compile` are taken off, and weight normalisation is multiplied into the weights, which it leaves equal.

    Raises:
        OptionsError: it is no module, or cannot be copied.
    """
    if not isinstance(network, nn.Module):
        raise OptionsError(f"The network must be a torch.nn.Module, not an object of type {type(network).__name__}.")
    while isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(network, "_orig_mod"):
        network = network.get_submodule("_orig_mod" if hasattr(network, "_orig_mod") else "module")
    normalised = {
        id(m): h for m in network.modules() for h in m._forward_pre_hooks.values() if isinstance(h, WeightNorm)
    }
    for module in network.modules():
        # a product with a gradient cannot be copied; the next forward pass computes it anew
        if id(module) in normalised:
            name = normalised[id(module)].name
            setattr(module, name, getattr(module, name).detach())
    try:
        copied = copy.deepcopy(network)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        raise OptionsError(
            f"The network {type(network).__name__} cannot be copied: {_first_line(error)} Give a network whose attributes are parameters, "
            "buffers, modules and plain values."
        ) from error
    _multiply_in(copied)
    types = {tensor.dtype for tensor in copied.parameters() if tensor.is_floating_point()}
    if types - {torch.float32}:
        get_logger().info("The copy of the network that is quantized computes in float32, not in %s.", _names(types))
    return copied.float().eval().requires_grad_(False)


def _multiply_in(network: nn.Module) -> None:
    """Replace normalised weights by plain ones, in place."""
    for module in list(network.modules()):
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
        if parametrize.is_parametrized(module):  # torch's own removal would take the weight of the original away too
            parametrizations = module.get_submodule("parametrizations")
            assert isinstance(parametrizations, nn.ModuleDict)
            weights = {name: getattr(module, name) for name in parametrizations}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, weight in weights.items():
                module.register_parameter(name, nn.Parameter(weight.detach()))


@torch.no_grad()
def probe(network: nn.Module, lr: Tensor | None = None) -> Probe:
    """Run a network once and return what that shows.

    Args:
        network: in evaluation mode.
        lr: images (n, 3, h, w) in 0..1, on any device; by default noise of 64 x 64 pixels.

    Raises:
        OptionsError: it fails for these images, or does not return them enlarged by a whole number.
    """
    name = type(network).__name__
    tensors = [*network.parameters(), *network.buffers()]
    if lr is None:
        lr = torch.rand(1, 3, _PROBE_SIDE, _PROBE_SIDE, generator=torch.Generator().manual_seed(0))
    lr = lr.to(tensors[0].device if tensors else "cpu")
    calls: dict[str, int] = {}
    features: set[str] = set()
    with ExitStack() as hooks:
        for module_name, module in network.named_modules():

            def count(_module: nn.Module, _inputs: Any, output: Any, module_name: str = module_name) -> None:
                calls[module_name] = calls.get(module_name, 0) + 1
                if isinstance(output, Tensor) and output.dim() > 1 and len(output) == len(lr):
                    features.add(module_name)

            hooks.callback(module.register_forward_hook(count).remove)
        try:
            output = network(lr)
        except Exception as error:  # whatever the code of the network raises
            raise OptionsError(
                f"The network {name} fails for images of the shape {tuple(lr.shape)}: {type(error).__name__}: {_first_line(error)} Give "
                "crops of a size that it takes."
            ) from error
    once = frozenset(feature for feature in features if calls[feature] == 1)
    return Probe(_scale_of(output, lr, name), output, calls, once)


def _scale_of(output: Any, lr: Tensor, name: str) -> int:
    if not isinstance(output, Tensor):
        raise OptionsError(
            f"The network {name} returns an object of type {type(output).__name__}, not a tensor (n, 3, h * scale, w * scale). Wrap it in "
            "a module that returns the enlarged images alone."
        )
    n, _, h, w = lr.shape
    scale = output.shape[-1] // w
    if scale < 1 or tuple(output.shape) != (n, 3, scale * h, scale * w):
        raise OptionsError(
            f"The network {name} makes {tuple(output.shape)} of images {tuple(lr.shape)}, which are not enlarged by a whole number: "
            f"({n}, 3, {h} * scale, {w} * scale) is expected. Give images of a size that it enlarges evenly, or wrap it in a module that does."
        )
    return scale


def size_multiple_of(network: nn.Module, given: int | None = None) -> int:
    """Return what heights and widths must be multiples of: as given, or the network's attribute `size_multiple`, or 1.

    Raises:
        OptionsError: it is no positive integer.
    """
    multiple = base.size_multiple_of(network) if given is None else given
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise OptionsError(f"size_multiple is {multiple!r}, but must be a positive integer.")
    return multiple


def quantizable_types() -> set[str]:
    """Return the names of the classes that the coverage `full` replaces by a quantized twin, such as Conv2d."""
    return {QMODULE_REGISTRY.get(rule.type).source_type for rule in PRESETS["full"].rules}


def layers_left_out(network: nn.Module, calls: Mapping[str, int]) -> dict[str, str]:
    """Return why layers of a full-precision network cannot be quantized, by their names.

    Args:
        network: the full-precision network.
        calls: see `Probe`.
    """
    known, refused = quantizable_types(), refused_layers(network)
    reasons = {}
    for name, module in network.named_modules():
        if not any(p is not None and p.dim() > 1 for p in module._parameters.values()):
            continue
        if type(module).__name__ not in known:
            reasons[name] = f"a {type(module).__name__} has no quantized form"
        elif name not in calls:
            reasons[name] = "the forward pass does not call it"
        elif name in refused:
            reasons[name] = refused[name].rstrip(".")
    return reasons


def refused_layers(network: nn.Module) -> dict[str, str]:
    """Return the layers whose class has a quantized twin that does not know what they do, such as a padding mode, with the reason."""
    try:
        selected = select_modules(network, "full", MAX_BITS, MAX_BITS)
    except QuantizationError:  # it has no layer at all, which is told where it matters
        return {}
    return {name: module.refusal for name, module in selected.items() if module.refusal is not None}


def repeated_blocks(network: nn.Module, features: frozenset[str]) -> list[str]:
    """Return the names of the blocks that a network is built of, for losses on their outputs; none if it is not built so.

    They are the children of one module that are of one class and hold layers, with the most parameters together.

    Args:
        network: the full-precision network.
        features: see `Probe`.
    """
    best: list[str] = []
    most = 0
    for parent_name, parent in network.named_modules():
        groups: dict[type[nn.Module], list[str]] = {}
        for child_name, child in parent.named_children():
            name = f"{parent_name}.{child_name}" if parent_name else child_name
            if name in features and any(True for _ in child.children()):
                groups.setdefault(type(child), []).append(name)
        for names in groups.values():
            size = sum(p.numel() for name in names for p in network.get_submodule(name).parameters())
            if len(names) > 1 and size > most:
                best, most = names, size
    return best


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0].strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _names(types: set[torch.dtype]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
