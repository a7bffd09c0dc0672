"""Networks of fewer blocks within one network, by the learned factors of their skip connections (QuantSR, NeurIPS 2023)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from basicsr.quant.modules.residual_add_qmodule import QScaledResidualAdd
from basicsr.quant.spec import QuantizationError


def scaled_blocks(network: nn.Module) -> dict[str, QScaledResidualAdd]:
    """Return the blocks whose sum has a learned factor of the skip connection, in the order of registration, with that sum."""
    sums = {name: module for name, module in network.named_modules() if isinstance(module, QScaledResidualAdd)}
    return {name.rpartition(".")[0]: module for name, module in sums.items() if "." in name}


def blocks_beyond(network: nn.Module, depth: float, option: str) -> list[str]:
    """Return the blocks that a network of a share of its blocks leaves out; see `blocks_beyond_each`."""
    return blocks_beyond_each(network, [depth], option)[0]


def blocks_beyond_each(network: nn.Module, depths: Sequence[float], option: str) -> list[list[str]]:
    """Return for each depth the blocks that a network of this share of its blocks leaves out, in the order of registration.

    Those with the smallest factors are kept, whose output has the largest share of their branch; of equal ones the later. The host
    reads the factors once for all depths.

    Args:
        network: a quantized network.
        depths: shares of the blocks to keep, rounded up; above 0 and at most 1.
        option: where it is asked for, for messages.

    Raises:
        QuantizationError: the network has no such blocks.
    """
    blocks = scaled_blocks(network)
    if not blocks:
        raise QuantizationError(
            f"Option '{option}' leaves out blocks by the learned factors of their skip connections, but {type(network).__name__} has none "
            "in this coverage. Add a rule such as {modules: body.*.add, type: QScaledResidualAdd, a_bits: 32}, as QuantSR has it, or "
            "leave the option out."
        )
    names, factors = list(blocks), torch.stack([add.shortcut.detach() for add in blocks.values()]).tolist()
    by_factor = sorted(range(len(names)), key=lambda i: (factors[i], -i))
    return [[names[i] for i in sorted(by_factor[math.ceil(depth * len(names)) :])] for depth in depths]


def leave_out(network: nn.Module, blocks: Sequence[str]) -> None:
    """Let blocks give their scaled input and compute nothing else; none of a network's tensors changes."""
    sums = scaled_blocks(network)
    for name in blocks:
        network.get_submodule(name).forward = partial(_scaled_input, sums[name])  # type: ignore[method-assign]


def take_in(network: nn.Module) -> None:
    """Undo `leave_out`."""
    for name in scaled_blocks(network):
        network.get_submodule(name).__dict__.pop("forward", None)


@contextmanager
def left_out(network: nn.Module, blocks: Sequence[str]) -> Iterator[None]:
    """Leave out blocks for a while; none is left out afterwards."""
    leave_out(network, blocks)
    try:
        yield
    finally:
        take_in(network)


def _scaled_input(add: QScaledResidualAdd, x: Tensor, *_: object) -> Tensor:
    return add.without_branch(x)
