"""Steps of an optimiser in proportion to the quantization steps that there were when training began."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.modules.base import QModule
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import OptionsError

Units = list[tuple[nn.Parameter, Tensor]]
"""Parameters, and for each what changes it by one quantization step: above 0, of its shape."""


class RelativeSteps:
    """Multiplies what an optimiser adds to a parameter by the parameter's unit.

    The learning rate is then a share of a quantization step: the same for a weight and for an activation in 0..255, at 2 bits
    and at 4, and for bounds and for the step of LSQ, whose outermost value moves by several times what the step moves by. Units
    are those before the first iteration, so that they do not grow or shrink with what is learned; they are part of the
    training state. For optimisers that are indifferent to the size of a gradient, such as Adam.

    Args:
        optimizer: moves the parameters, and possibly others, which are left alone.
        units: each returns parameters and their present units, see `quantizer_units` and `weight_units`. Called here, to check,
            and before the first step, when all quantizers are calibrated.

    Raises:
        OptionsError: the optimiser takes larger steps for larger gradients.
        QuantizationError: a parameter has no unit.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *units: Callable[[], Units]) -> None:
        if isinstance(optimizer, torch.optim.SGD | torch.optim.ASGD):
            raise OptionsError(
                f"The steps of {type(optimizer).__name__} grow with the gradient, so that its learning rate is no share of a "
                "quantization step. Choose Adam or another optimiser that divides by the gradient's size, or take the "
                "relative learning rate away."
            )
        self._units = units
        self._parameters: list[Tensor] = [parameter for of_part in units for parameter, _ in of_part()]
        self._quantization_steps: list[Tensor] = []
        self._start: list[Tensor] = []
        if self._parameters:
            optimizer.register_step_pre_hook(self._before)
            optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        if not self._quantization_steps:
            self._quantization_steps = [unit for units in self._units for _, unit in units()]
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


def quantizer_units(quantizers: Iterable[Quantizer]) -> Units:
    """Return what quantizers learn, in their order, with the units of `Quantizer.parameter_units`.

    Raises:
        QuantizationError: a quantizer learns something that has no unit.
    """
    units: Units = []
    for quantizer in quantizers:
        of_name = quantizer.parameter_units()
        units += [(parameter, of_name[name]) for name, parameter in quantizer.named_parameters()]
    return units


@torch.no_grad()
def weight_units(network: nn.Module, inputs: int | None = None) -> Units:
    """Return the weights that a network quantizes, in order of registration, with the quantization step of each element.

    Rows of a weight that are not quantized while others are count with the mean step of those.

    Args:
        network: with quantizers.
        inputs: shorten the step of a weight whose outputs have more inputs than these, by the root of the ratio. The first steps of Adam
            move all weights of an output in the direction that its inputs ask for, so that it moves by as many times their rate as there are.
            The step itself, a share of the weights' range, falls with the root of their number, so that the other root is
            left (maximal update parametrisation, arXiv 2203.03466, table 3).

    Raises:
        QuantizationError: the values of a weight are no uniform grid.
    """
    units: Units = []
    for module in network.modules():
        rows = module.weights() if isinstance(module, QModule) else {}  # the weight, or all of its rows in order
        steps = {slot: _step(module.get_submodule(slot), weight) for slot, weight in rows.items()}
        known = [step for step in steps.values() if step is not None]
        if known:
            mean = torch.stack([step.mean() for step in known]).mean()
            whole = [mean.expand_as(w) if (step := steps[slot]) is None else step for slot, w in rows.items()]
            weight = module.get_parameter("weight")
            units.append((weight, torch.cat(whole) * _share(weight[0].numel(), inputs)))
    return units


def checked_units(option: str, network: nn.Module) -> Callable[[], Units]:
    """Return what returns the units of all that the quantizers of a network learn, for the option that asks for them.

    Raises:
        OptionsError: a quantizer learns something that has no unit.
    """
    units = partial(quantizer_units, [quantizer for _, quantizer in named_quantizers(network)])
    try:
        units()
    except QuantizationError as error:
        raise OptionsError(
            f"Option '{option}' counts rates in quantization steps. {error} Take the option away."
        ) from error
    return units


def _share(own: int, inputs: int | None) -> float:
    """Return how much of its step a weight of so many inputs keeps."""
    return 1.0 if inputs is None else min(1.0, math.sqrt(inputs / own))


def _step(quantizer: nn.Module, weight: Tensor) -> Tensor | None:
    """Return the quantization step of each element of a weight; None where it is not quantized."""
    if not isinstance(quantizer, Quantizer):
        return None
    lower_bound, upper_bound = quantizer.affine_bounds(weight.detach())
    step = (upper_bound - lower_bound) / quantizer.spec.max_code
    axis = quantizer.spec.channel_axis
    return (step if axis is None else step.view([-1 if i == axis else 1 for i in range(weight.ndim)])).expand_as(weight)
