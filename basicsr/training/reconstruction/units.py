"""Which block learns what in which iterations."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from torch import nn

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.utils.errors import OptionsError

Part = Literal["both", "roundings", "bounds"]
"""What a block learns: how its weights round, the bounds of its activations, or both together."""

Order = Literal["joint", "weights_first"]
"""All blocks with both parts together; or all blocks with their roundings, then all with their bounds."""


def running(module: nn.Module, learns: Part) -> AbstractContextManager[None]:
    """Let a network, or a part of one, compute as while a part is learned: roundings with activations in full precision."""
    return bypass_quantizers(module, activations_only=True) if learns == "roundings" else nullcontext()


@dataclass(frozen=True)
class Unit:
    """One block in one part of a run.

    Attributes:
        block: name of the module.
        learns: what it learns.
        first: its first iteration, from 0.
        end: the one after its last.
    """

    block: str
    learns: Part
    first: int
    end: int


def plan_units(
    network: nn.Module, blocks: Sequence[str], total_iter: int, order: Order, bounds_share: float
) -> list[Unit]:
    """Return what is done in turn; units of a part get equal shares of its iterations, which differ by one at most.

    Args:
        network: a quantized network.
        blocks: names of the blocks to reconstruct, in the order of execution.
        total_iter: iterations in all.
        order: see `Order`.
        bounds_share: share of the iterations in which bounds are learned, with `weights_first`. A part that no block has anything to
            learn in gets none.

    Raises:
        OptionsError: there are fewer iterations than units.
    """
    if order == "joint":
        return _shared(blocks, "both", 0, total_iter)
    roundings = [block for block in blocks if quantized_weights(network.get_submodule(block))]
    bounds = [block for block in blocks if _has_bounds(network.get_submodule(block))]
    switch = total_iter - round(total_iter * bounds_share)
    switch = total_iter if not bounds else 0 if not roundings else switch
    return [*_shared(roundings, "roundings", 0, switch), *_shared(bounds, "bounds", switch, total_iter)]


def _shared(blocks: Sequence[str], learns: Part, first: int, end: int) -> list[Unit]:
    if end - first < len(blocks):
        part = {"both": "", "roundings": " to learn roundings", "bounds": " to learn bounds"}[learns]
        raise OptionsError(
            f"Option 'train:total_iter' leaves {end - first} iterations{part}, but there are {len(blocks)} blocks, which need one each "
            "at least. Ask for more iterations, or name fewer blocks with 'train:blocks'."
        )
    starts = [first - (-k * (end - first) // len(blocks)) for k in range(len(blocks) + 1)] if blocks else []
    return [Unit(block, learns, *starts[k : k + 2]) for k, block in enumerate(blocks)]


def _has_bounds(block: nn.Module) -> bool:
    weights = quantized_weights(block)
    return any(name not in weights and list(quantizer.parameters()) for name, quantizer in named_quantizers(block))
