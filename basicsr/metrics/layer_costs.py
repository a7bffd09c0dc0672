"""What each layer of a network costs: multiply-accumulate operations (MAC), weights, and bits of the factors.

Networks are observed from outside, in one forward pass. What counts how:

- a module with a method `cost` (every quantized layer) states its own cost, and that of all that is inside of it and states none;
- `Linear`, `Conv2d`, `MatMul` and `LayerNorm`, known by the names of their classes, have a rule here;
- a module with a method `own_macs(inputs, output)` states the MACs that it does with its own parameters, without its children;
- of every other module, products of matrices and convolutions are counted as torch's FLOP counter knows them, in full precision.

A module with parameters that none of this reaches, such as one that multiplies element by element, or one that is never called,
is named in the result and in the log. Quantizers are children called `..._quantizer`; points that are not learned are their
buffer `points`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from basicsr.archs.base import size_multiple_of
from basicsr.utils.errors import OptionsError

FULL_PRECISION_BITS = 32
OTHER = "other"
"""Kind of a layer that is counted by torch's FLOP counter."""

_PROBE_SIDE = 8
_PROBES = (1, 2, 3)
"""Multiples of the side: costs may have parts that are constant, linear and quadratic in the number of pixels."""


class StatedCost(Protocol):
    """What a module's `cost` returns; see `basicsr.quant.modules.cost.Cost`."""

    kind: str
    macs: int
    weights: int
    factor_bits: Sequence[tuple[int, int]]


@runtime_checkable
class StatesCost(Protocol):
    """A module that states its cost and that of everything inside of it that states none."""

    def cost(self, inputs: tuple[Tensor, ...], output: Tensor, /) -> StatedCost:
        """Return what a call with these inputs and this output costs."""


@runtime_checkable
class StatesOwnMacs(Protocol):
    """A module that states the MACs that it does with its own parameters; those of its children are counted apart."""

    def own_macs(self, inputs: tuple[Tensor, ...], output: Tensor, /) -> int:
        """Return the MACs of a call with these inputs and this output."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one LR image.

    Attributes:
        name: path of the module.
        kind: what it computes: `linear`, `matmul`, `conv`, `norm` (one MAC for each value), `other`, or what a layer says itself.
        macs: multiply-accumulate operations.
        weights: number of elements of the weight, without the bias.
        weight_bits: bits of the weight (mean over the parts of a split layer); 32 if it is not quantized.
        bit_product: bits of one factor times bits of the other (mean over parts); 1024 in full precision.
        quantized: both factors are.
    """

    name: str
    kind: str
    macs: int
    weights: int
    weight_bits: float
    bit_product: float
    quantized: bool


def count_layers(network: nn.Module, lr_size: tuple[int, int]) -> tuple[list[LayerCost], list[str]]:
    """Return the cost of every layer, and the names of modules with parameters that could not be counted.

    Layers are counted on three small images, and continued to the size asked for: exact for whatever is constant, linear or
    quadratic in the number of pixels. A network that takes no images so small is counted on one of the size asked for. Sides that are no
    multiples of the network's `size_multiple` count as the next multiple.

    Args:
        network: a network for RGB images, in any mode.
        lr_size: height and width of the LR image.

    Raises:
        OptionsError: the network takes no image of this size.
    """
    multiple = size_multiple_of(network)
    side = -(-_PROBE_SIDE // multiple) * multiple
    height, width = (-(-length // multiple) * multiple for length in lr_size)
    sizes = [(factor * side, factor * side) for factor in _PROBES]
    try:
        probes = [_Probe(network, size) for size in sizes]
    except RuntimeError:
        sizes = [(height, width)]  # through one point goes a constant
        probes = [_whole(network, size) for size in sizes]
    pixels = [high * wide for high, wide in sizes]

    def continued(name: str) -> int:
        return _continued(pixels, [probe.costs[name].macs for probe in probes], height * width)

    return [replace(cost, macs=continued(name)) for name, cost in probes[0].costs.items()], probes[0].not_counted


def _whole(network: nn.Module, size: tuple[int, int]) -> "_Probe":
    try:
        return _Probe(network, size)
    except RuntimeError as error:
        raise OptionsError(
            f"The operations of the network {type(network).__name__} cannot be counted, for it fails on an image of {size[0]} x {size[1]} "
            f"pixels: {error}. Let its attribute 'size_multiple' say what sides it takes."
        ) from error


class _FlopCounter(TorchDispatchMode):
    """Adds up the floating-point operations of matrix products and convolutions.

    Like torch's `FlopCounterMode`, with the same formulas, but without its tracker of modules, which fails on the parts of a split weight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: else torch from 2.6 on imports its compiler, which takes seconds, to keep it from compiling this mode."""
        return False

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=output)
        return output


class _Probe:
    """What the modules of a network cost in one pass.

    Args:
        network: the network.
        size: height and width of the image.

    Attributes:
        costs: by the name of the module.
        not_counted: names of the modules with parameters that no rule knows.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        self.costs: dict[str, LayerCost] = {}
        self._known: set[str] = set()
        self._flops = _FlopCounter()
        self._inside = [0]  # for each module that is running, the FLOPs of its children so far
        modules = dict(_modules_to_count(network))
        with ExitStack() as stack:
            for name, module in modules.items():
                for hook in self._hooks(name, module):
                    stack.callback(hook.remove)
            with torch.no_grad(), self._flops:
                network(next(network.parameters()).new_full((1, 3, *size), 0.5))
        self.not_counted = [name for name, m in modules.items() if _has_parameters(m) and name not in self._known]

    def _hooks(self, name: str, module: nn.Module) -> list[Any]:
        """Register what counts a module; return the handles."""
        starts: list[int] = []

        def enter(*_: Any) -> None:
            starts.append(self._flops.total)
            self._inside.append(0)

        def leave(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            spent = self._flops.total - starts.pop()
            own = spent - self._inside.pop()
            self._inside[-1] += spent
            cost = _cost(name, module, (*inputs, *named.values()), output, own)
            if cost is None:
                return
            self._known.add(name)
            if cost.macs:
                earlier = self.costs[name].macs if name in self.costs else 0
                self.costs[name] = replace(cost, macs=cost.macs + earlier)

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, with_kwargs=True)]


def _modules_to_count(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and those inside of it, but inside of one that states its cost only what states its own besides."""
    yield name or type(module).__name__, module
    for child_name, child in module.named_children():
        if not isinstance(module, StatesCost) or isinstance(child, StatesCost):
            yield from _modules_to_count(child, f"{name}.{child_name}" if name else child_name)


def _has_parameters(module: nn.Module) -> bool:
    return any(parameter is not None for parameter in module._parameters.values())


def _cost(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any, own_flops: int) -> LayerCost | None:
    """Return the cost of a call; None for a module that does nothing that could be counted."""
    if isinstance(module, StatesCost):
        return _stated(name, module.cost(inputs, output))
    rule = _RULES.get(type(module).__name__)
    if rule is not None:
        kind, macs = rule[0], rule[1](module, inputs, output)
    elif isinstance(module, StatesOwnMacs):
        kind, macs = OTHER, module.own_macs(inputs, output)
    elif own_flops:  # two to a MAC
        kind, macs = OTHER, own_flops // 2
    else:
        return None
    weights = _weight_of(module).numel() if kind in ("linear", "conv") else 0
    return LayerCost(name, kind, macs, weights, FULL_PRECISION_BITS, float(FULL_PRECISION_BITS**2), quantized=False)


def _stated(name: str, cost: StatedCost) -> LayerCost:
    pairs = cost.factor_bits
    return LayerCost(
        name=name,
        kind=cost.kind,
        macs=cost.macs,
        weights=cost.weights,
        weight_bits=sum(first for first, _ in pairs) / len(pairs) if cost.weights else FULL_PRECISION_BITS,
        bit_product=sum(first * second for first, second in pairs) / len(pairs),
        quantized=all(bits < FULL_PRECISION_BITS for pair in pairs for bits in pair),
    )


Rule = Callable[[nn.Module, tuple[Any, ...], Any], int]


def _sums_over_rows(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> int:
    return output.numel() * _weight_of(module)[0].numel()


def _weight_of(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)  # the rules are of layers that have one
    return weight


_RULES: dict[str, tuple[str, Rule]] = {
    "Linear": ("linear", _sums_over_rows),
    "Conv2d": ("conv", _sums_over_rows),
    "MatMul": ("matmul", lambda _, inputs, output: output.numel() * inputs[0].shape[-1]),
    "LayerNorm": ("norm", lambda _module, _inputs, output: output.numel()),
}
"""Kind and MACs of layers in full precision, by the names of their classes."""


def _continued(pixels: Sequence[int], macs: Sequence[int], wanted: int) -> int:
    """Return the value at `wanted` of the polynomial through the points (Lagrange), in exact arithmetic."""
    total = Fraction(0)
    for index, value in enumerate(macs):
        others = [pixel for other, pixel in enumerate(pixels) if other != index]
        term = Fraction(value)
        for other in others:
            term *= Fraction(wanted - other, pixels[index] - other)
        total += term
    return int(total)
