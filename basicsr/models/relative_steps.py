"""Steps of an optimiser in proportion to the quantization step that each quantizer had when training began."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion import named_quantizers
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import OptionsError


class RelativeSteps:
    """Multiplies what an optimiser adds to a parameter of a quantizer by the parameter's unit, see `Quantizer.parameter_units`.

    The learning rate is then a share of a quantization step: the same for a weight and for an activation in 0..255, at 2 bits
    and at 4, and for bounds and for the step of LSQ, whose outermost value moves by several times what the step moves by. Units
    are those before the first iteration, so that they do not grow or shrink with what is learned; they are part of the
    training state. For optimisers that are indifferent to the size of a gradient, such as Adam.

    Args:
        optimizer: moves the parameters, and possibly others, which are left alone.
        quantizers: those with the parameters. They are calibrated before the first step.

    Raises:
        QuantizationError: a quantizer learns something that has no unit.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, quantizers: Sequence[Quantizer]) -> None:
        self._quantizers = list(quantizers)
        _units(self._quantizers)
        self._parameters = [p for quantizer in self._quantizers for p in quantizer.parameters()]
        self._quantization_steps: list[Tensor] = []
        self._start: list[Tensor] = []
        if self._parameters:
            optimizer.register_step_pre_hook(self._before)
            optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        if not self._quantization_steps:
            self._quantization_steps = _units(self._quantizers)
        self._start = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        moves = torch._foreach_sub(self._parameters, self._start)
        torch._foreach_copy_(self._parameters, self._start)
        torch._foreach_addcmul_(self._parameters, moves, self._quantization_steps)

    def state_dict(self) -> list[Tensor]:
        """Return the quantization steps, in units of the parameters and in their order; none before the first iteration."""
        return self._quantization_steps

    def load_state_dict(self, quantization_steps: Sequence[Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self._quantization_steps = [step.to(self._parameters[0].device) for step in quantization_steps]


def relative_steps(optimizer: torch.optim.Optimizer, network: nn.Module, option: str) -> RelativeSteps:
    """Return the relative steps of all quantizers of a network, for the option that asks for them.

    Raises:
        OptionsError: a quantizer learns something that has no unit.
    """
    try:
        return RelativeSteps(optimizer, [quantizer for _, quantizer in named_quantizers(network)])
    except QuantizationError as error:
        raise OptionsError(f"Option '{option}' is true. {error} Set it to false.") from error


def _units(quantizers: Sequence[Quantizer]) -> list[Tensor]:
    """Return the units in the order in which the quantizers name their parameters."""
    units = []
    for quantizer in quantizers:
        of_name = quantizer.parameter_units()
        units += [of_name[name] for name, _ in quantizer.named_parameters()]
    return units
