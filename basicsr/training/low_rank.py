"""A correction of low rank for each quantized weight, learned beside the bounds and always part of the weight (SPR2Q, ICLR 2026)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.quant.spec import QuantizationError
from basicsr.training.relative_steps import Units, weight_units
from basicsr.utils.errors import OptionsError


@dataclass(frozen=True)
class _Correction:
    """The weight W of a layer and the factors of what is added to it: W = base + up @ down, as a matrix of a row for each output channel."""

    weight: nn.Parameter
    up: nn.Parameter  # rows, rank
    down: nn.Parameter  # rank, k


class LowRankCorrections:
    """Trains quantized weights along matrices of low rank. The weights of the network always hold their corrections.

    The quantizers pass gradients to the weights. Those of the factors follow: of up, the gradient times down transposed, and of down, up
    transposed times the gradient. So layers, checkpoints and exports know nothing of the factors. At the beginning up is 0 and down
    random, with a variance of 1 / rank.

    Args:
        network: a network with quantizers; the weights that it quantizes, and no others, begin to take gradients.
        rank: columns of up; a weight with fewer rows or columns has as many as these.
        seed: of the random factors.

    Attributes:
        parameters: the factors.

    Raises:
        OptionsError: no weight is quantized, or the values of one are no uniform grid.
    """

    def __init__(self, network: nn.Module, rank: int, seed: int) -> None:
        self._network = network
        generator = torch.Generator().manual_seed(seed)
        self._corrections: list[_Correction] = []
        for weight, _ in self._weight_units():
            rows, k = weight.flatten(1).shape
            own = min(rank, rows, k)
            down = torch.randn(own, k, generator=generator) / own**0.5
            up = torch.zeros(rows, own)
            weight.requires_grad_(True)
            self._corrections.append(_Correction(weight, *(nn.Parameter(f.to(weight.device)) for f in (up, down))))
        if not self._corrections:
            raise OptionsError(
                "Option 'train:correction_rank' corrects quantized weights, but no weight is quantized. Set it to 0."
            )
        self._base: list[Tensor] = []

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The factors, in the order of `units`."""
        return [factor for one in self._corrections for factor in (one.up, one.down)]

    def units(self) -> Units:
        """Return the factors, each with what moves its weight by about one quantization step."""
        units: Units = []
        for one, (_, step) in zip(self._corrections, self._weight_units(), strict=True):
            of_rows = step.flatten(1).mean(1, keepdim=True)  # rows, 1
            units.append((one.up, of_rows.expand_as(one.up)))
            units.append((one.down, torch.full_like(one.down, one.up.shape[1] ** -0.5)))
        return units

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Give the factors the gradients that follow from those of the weights, which are let go."""
        for one in self._corrections:
            if one.weight.grad is not None:
                gradient = one.weight.grad.flatten(1)
                one.up.grad, one.down.grad = gradient @ one.down.T, one.up.T @ gradient
                one.weight.grad = None

    @torch.no_grad()
    def begin(self) -> None:
        """Take the present weights for those that corrections are added to, unless that was done."""
        if not self._base:
            self._base = [one.weight.detach().clone() for one in self._corrections]

    @torch.no_grad()
    def merge(self) -> None:
        """Let the weights hold what has been learned."""
        for one, base in zip(self._corrections, self._base, strict=True):
            one.weight.copy_(base + (one.up @ one.down).view_as(base))

    def state_dict(self) -> dict[str, Any]:
        """Return the factors, and the weights without them; none of the latter before the first iteration."""
        return {"factors": [factor.detach() for factor in self.parameters], "base": self._base}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Sequence[Tensor]]) -> None:
        """Take over what `state_dict` returned."""
        for factor, value in zip(self.parameters, state["factors"], strict=True):
            factor.copy_(value)
        self._base = [base.to(one.weight.device) for one, base in zip(self._corrections, state["base"], strict=False)]

    def _weight_units(self) -> Units:
        try:
            return weight_units(self._network)
        except QuantizationError as error:
            raise OptionsError(
                f"Option 'train:correction_rank' counts steps of weights. {error} Set it to 0."
            ) from error
