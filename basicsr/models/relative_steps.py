"""Steps of an optimiser in proportion to the quantization step that each quantizer had when training began."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.insertion import named_quantizers
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.utils.errors import OptionsError


class RelativeSteps:
    """Multiplies what an optimiser adds to a bound by the bound's quantization step, (upper - lower) / (2**bits - 1).

    The learning rate is then a share of a quantization step, the same for the bounds of a weight and for those of an activation
    in 0..255, at 2 bits and at 4. Quantization steps are those before the first iteration, so that they do not grow or shrink
    with the bounds; they are part of the training state. For optimisers that are indifferent to the size of a gradient, such
    as Adam.

    Args:
        optimizer: moves `parameters`.
        network: holds the quantizers.
        parameters: the bounds of its quantizers, of the shape () or (C,).

    Raises:
        OptionsError: a quantizer learns something other than two bounds.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, network: nn.Module, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._quantizer_of: dict[nn.Parameter, AffineQuantizer] = {}
        for name, quantizer in named_quantizers(network):
            for parameter in quantizer.parameters():
                if not isinstance(quantizer, AffineQuantizer):
                    raise OptionsError(
                        f"Option 'train:relative_lr' is true, but the quantizer '{name}' is a {type(quantizer).__name__}, "
                        "whose parameters are no bounds. Set it to false."
                    )
                self._quantizer_of[parameter] = quantizer
        self._parameters = list(parameters)
        self._quantization_steps: list[Tensor] = []
        self._start: list[Tensor] = []
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        if not self._quantization_steps:
            self._quantization_steps = [_quantization_step(self._quantizer_of[bound]) for bound in self._parameters]
        self._start = [bound.detach().clone() for bound in self._parameters]

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        moves = torch._foreach_sub(self._parameters, self._start)
        torch._foreach_copy_(self._parameters, self._start)
        torch._foreach_addcmul_(self._parameters, moves, self._quantization_steps)

    def state_dict(self) -> list[Tensor]:
        """Return the quantization steps, in the order of the parameters; none before the first iteration."""
        return self._quantization_steps

    def load_state_dict(self, quantization_steps: Sequence[Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self._quantization_steps = [step.to(self._parameters[0].device) for step in quantization_steps]


def _quantization_step(quantizer: AffineQuantizer) -> Tensor:
    lower, upper = quantizer.bounds()
    return (upper - lower).detach() / quantizer.spec.max_code
