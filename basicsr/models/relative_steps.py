"""Steps of an optimiser in proportion to the quantization step that each quantizer had when training began."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer


class RelativeSteps:
    """Multiplies what an optimiser adds to a bound by the bound's quantization step, (upper - lower) / (2**bits - 1).

    The learning rate is then a share of a quantization step, the same for the bounds of a weight and for those of an activation
    in 0..255, at 2 bits and at 4. Quantization steps are those before the first iteration, so that they do not grow or shrink
    with the bounds; they are part of the training state. For optimisers that are indifferent to the size of a gradient, such
    as Adam.

    Args:
        optimizer: moves the bounds, and possibly other parameters, which are left alone.
        quantizers: those with the bounds, each a parameter of the shape () or (C,). They are calibrated before the first step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, quantizers: Sequence[AffineQuantizer]) -> None:
        self._quantizers = list(quantizers)
        self._bounds = [bound for quantizer in self._quantizers for bound in quantizer.parameters()]
        self._quantization_steps: list[Tensor] = []
        self._start: list[Tensor] = []
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        if not self._quantization_steps:
            self._quantization_steps = [_quantization_step(one) for one in self._quantizers for _ in one.parameters()]
        self._start = [bound.detach().clone() for bound in self._bounds]

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        moves = torch._foreach_sub(self._bounds, self._start)
        torch._foreach_copy_(self._bounds, self._start)
        torch._foreach_addcmul_(self._bounds, moves, self._quantization_steps)

    def state_dict(self) -> list[Tensor]:
        """Return the quantization steps, in the order of the bounds; none before the first iteration."""
        return self._quantization_steps

    def load_state_dict(self, quantization_steps: Sequence[Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self._quantization_steps = [step.to(self._bounds[0].device) for step in quantization_steps]


def _quantization_step(quantizer: AffineQuantizer) -> Tensor:
    lower, upper = quantizer.bounds()
    return (upper - lower).detach() / quantizer.spec.max_code
