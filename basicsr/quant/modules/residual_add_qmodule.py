"""Quantized sums of a skip connection and its branch."""

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from basicsr.quant.integers.products import grid_values
from basicsr.quant.integers.sums import ActivationCodes
from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split
from basicsr.quant.modules.cost import Cost, bits_of
from basicsr.quant.quantizers.base import Quantizer
from basicsr.utils.registry import QMODULE_REGISTRY


class _Source(Protocol):
    """What the `ResidualAdd` modules of the architectures tell of themselves."""

    channels: int
    scale: float
    channel_axis: int


@QMODULE_REGISTRY.register("QResidualAdd")
class QResidualAdd(QModule[nn.Module]):
    """A sum of two quantized summands, each with a quantizer of its own; the branch is scaled before it is quantized.

    It replaces the parameter-free `ResidualAdd` modules of the architectures, whose `forward(skip, branch)` returns
    `skip + scale * branch`. PAMS and DDTB quantize both summands in the residual blocks of EDSR so, in their released code.
    """

    source_type = "ResidualAdd"
    skip_quantizer: Quantizer
    branch_quantizer: Quantizer

    def __init__(self, source: nn.Module, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__(source, quantizers)
        self.scale = cast(_Source, source).scale

    @classmethod
    def slots(cls, source: nn.Module, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return a slot for each summand."""
        refuse_split(cls.__name__, split)
        return [_slot(name, source) for name in ("skip_quantizer", "branch_quantizer")]

    def cost(self, _inputs: tuple[Tensor, ...], _output: Tensor, /) -> Cost:
        """Return no MAC: nothing is multiplied but the branch by a constant."""
        return Cost("add", 0, 0, ((bits_of(self.skip_quantizer), bits_of(self.branch_quantizer)),))

    def integer_twin(self) -> nn.Module:
        """Return the sum of the values of integer codes."""
        return IntegerResidualAdd(self.skip_quantizer, self.branch_quantizer, self.scale)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:  # noqa: ARG002 -- a sum is never in integers
        """Return the sum in floating point, of values on the grids of the quantizers."""
        return RuntimeResidualAdd(self.skip_quantizer, self.branch_quantizer, self.scale)

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return the sum, of the shape of both, (n, channels, h, w)."""
        quantized_skip, quantized_branch = self.skip_quantizer(skip), self.branch_quantizer(_scaled(branch, self.scale))
        if _lets_through(self.skip_quantizer) and _lets_through(self.branch_quantizer):
            return _full_precision_sum(skip, branch, self.scale)
        return quantized_branch + quantized_skip


@QMODULE_REGISTRY.register("QSharedResidualAdd")
class QSharedResidualAdd(QModule[nn.Module]):
    """A sum of two summands that share one quantizer; the branch is scaled before it is quantized.

    It replaces the same modules as `QResidualAdd`. With one grid for both, a sum of codes is a sum of values. FQSR (ACM MM 2021)
    quantizes its element-wise layers so.
    """

    source_type = "ResidualAdd"
    act_quantizer: Quantizer

    def __init__(self, source: nn.Module, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__(source, quantizers)
        self.scale = cast(_Source, source).scale

    @classmethod
    def slots(cls, source: nn.Module, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return the slot for both summands."""
        refuse_split(cls.__name__, split)
        return [_slot("act_quantizer", source)]

    def cost(self, _inputs: tuple[Tensor, ...], _output: Tensor, /) -> Cost:
        """Return no MAC: nothing is multiplied but the branch by a constant."""
        return Cost("add", 0, 0, ((bits_of(self.act_quantizer), bits_of(self.act_quantizer)),))

    def integer_twin(self) -> nn.Module:
        """Return the sum of the values of integer codes."""
        return IntegerResidualAdd(self.act_quantizer, self.act_quantizer, self.scale)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:  # noqa: ARG002 -- a sum is never in integers
        """Return the sum in floating point, of values on the grid of the quantizer."""
        return RuntimeResidualAdd(self.act_quantizer, self.act_quantizer, self.scale)

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return the sum, of the shape of both, (n, channels, h, w)."""
        # one call, so that whoever observes the quantizer sees both: 2 * n samples
        both = self.act_quantizer(torch.cat((skip, _scaled(branch, self.scale))))
        if _lets_through(self.act_quantizer):
            return _full_precision_sum(skip, branch, self.scale)
        quantized_skip, quantized_branch = both.chunk(2)
        return quantized_branch + quantized_skip


@QMODULE_REGISTRY.register("QScaledResidualAdd")
class QScaledResidualAdd(QResidualAdd):
    """A sum whose skip connection has a learned factor, as in the released network of QuantSR (NeurIPS 2023).

    The parameter `shortcut`, float32 (), starts at 1. The summands may be quantized, which QuantSR does not do: `a_bits: 32` in
    the rule leaves them. The skip is scaled before it is quantized.
    """

    learns_besides = True

    def __init__(self, source: nn.Module, quantizers: Mapping[str, nn.Module], /) -> None:
        super().__init__(source, quantizers)
        self.shortcut = nn.Parameter(torch.tensor(1.0))

    def integer_twin(self) -> nn.Module:
        """Return the sum of the values of integer codes."""
        twin = IntegerResidualAdd(self.skip_quantizer, self.branch_quantizer, self.scale)
        return ScaledSkip(self.shortcut.detach(), twin)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:
        """Return the sum in floating point, of values on the grids of the quantizers."""
        return ScaledSkip(self.shortcut.detach(), super().runtime_form(integer_linear=integer_linear))

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return the sum, of the shape of both, (n, channels, h, w)."""
        return super().forward(skip * self.shortcut, branch)

    def without_branch(self, skip: Tensor) -> Tensor:
        """Return what is left of the sum where the branch is left out: the quantized skip connection times its factor."""
        quantized: Tensor = self.skip_quantizer(skip * self.shortcut)
        return quantized


class ScaledSkip(nn.Module):
    """The twin of a sum, given a skip connection times a factor."""

    factor: Tensor

    def __init__(self, factor: Tensor, twin: nn.Module) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.twin = twin

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return the sum, of the shape of both, (n, channels, h, w)."""
        total: Tensor = self.twin(skip * self.factor, branch)
        return total


class IntegerResidualAdd(nn.Module):
    """Integer twin of both sums: the values of integer codes, added up in float64."""

    def __init__(self, skip: nn.Module, branch: nn.Module, scale: float) -> None:
        super().__init__()
        self.summands = [ActivationCodes(q) if isinstance(q, Quantizer) else None for q in (skip, branch)]
        self.scale = scale

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return the sum, of the shape of both, (n, channels, h, w)."""
        tensors = (skip, _scaled(branch, self.scale))
        values = [
            x.double() if c is None else c.grid.lower + c(x) * c.grid.step
            for c, x in zip(self.summands, tensors, strict=True)
        ]
        return (values[0] + values[1]).to(skip.dtype)


class RuntimeResidualAdd(nn.Module):
    """Runtime twin of both sums, in floating point: runtimes add in it, too, where the grids of the summands differ."""

    def __init__(self, skip: nn.Module, branch: nn.Module, scale: float) -> None:
        super().__init__()
        self.skip, self.branch, self.scale = grid_values(skip), grid_values(branch), scale

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Return the sum, of the shape of both, (n, channels, h, w)."""
        total: Tensor = self.skip(skip) + self.branch(_scaled(branch, self.scale))
        return total


def _slot(name: str, source: nn.Module) -> QuantizerSlot:
    module = cast(_Source, source)
    return QuantizerSlot(name, "activation", module.channels, module.channel_axis)


def _scaled(branch: Tensor, scale: float) -> Tensor:
    return branch if scale == 1 else branch * scale


def _full_precision_sum(skip: Tensor, branch: Tensor, scale: float) -> Tensor:
    """Return the bits of the module that is stood for."""
    return branch + skip if scale == 1 else torch.add(skip, branch, alpha=scale)


def _lets_through(quantizer: nn.Module) -> bool:
    return not isinstance(quantizer, Quantizer) or quantizer.bypass
