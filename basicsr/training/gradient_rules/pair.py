"""The gradients of two losses over the parameters of a network, on their way to the optimiser."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from basicsr.quant.modules.base import QModule
from basicsr.training.gradient_rules.base import GradientRule
from basicsr.utils import dist


class GradientPair:
    """Gradients of a main and of an auxiliary loss, summed up over the parts of a batch.

    Args:
        network: whose parameters are trained.

    Attributes:
        parameters: all parameters, in the order of registration.
        main: gradient of the main loss for each parameter; None where the loss does not depend on it.
        auxiliary: as `main`, for the auxiliary loss.
    """

    def __init__(self, network: nn.Module) -> None:
        named = dict(network.named_parameters())
        layer_of = layers_of_parameters(network)
        self.parameters = list(named.values())
        self._layers = [layer_of[name] for name in named]
        self.main: list[Tensor | None] = [None] * len(named)
        self.auxiliary: list[Tensor | None] = [None] * len(named)

    def clear(self) -> None:
        """Forget all gradients."""
        self.main = [None] * len(self.parameters)
        self.auxiliary = [None] * len(self.parameters)

    def add(self, main_loss: Tensor, auxiliary_loss: Tensor | None, reached: Sequence[int]) -> None:
        """Add the gradients of two losses that come from one forward pass, whose graph is then gone.

        Args:
            main_loss: a scalar.
            auxiliary_loss: a scalar, or None for none; costs a backward pass of its own.
            reached: indices of the parameters that the auxiliary loss may change.
        """
        gradients = torch.autograd.grad(
            main_loss, self.parameters, retain_graph=auxiliary_loss is not None, allow_unused=True
        )
        _add(self.main, enumerate(gradients))
        if auxiliary_loss is not None:
            gradients = torch.autograd.grad(auxiliary_loss, [self.parameters[i] for i in reached], allow_unused=True)
            _add(self.auxiliary, zip(reached, gradients, strict=True))

    def average(self) -> None:
        """Average both over the processes. What is None in one of them is so in all, except that None counts as zero."""
        if dist.world_size() > 1:
            self.main = [
                torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, self.main, strict=True)
            ]
            dist.average_tensors([gradient for gradient in (*self.main, *self.auxiliary) if gradient is not None])

    def common(self) -> tuple[list[Tensor], list[Tensor], list[str]]:
        """Return main gradients, auxiliary gradients and layer names of the parameters that both losses reach."""
        chosen = self._common_indices()
        return (
            [gradient for i in chosen if (gradient := self.main[i]) is not None],
            [gradient for i in chosen if (gradient := self.auxiliary[i]) is not None],
            [self._layers[i] for i in chosen],
        )

    def hand_over(self, rule: GradientRule | None) -> None:
        """Put the gradients into `parameter.grad`: joined by a rule, or the main ones alone without a rule."""
        joined = (
            [a if a is not None else b for a, b in zip(self.main, self.auxiliary, strict=True)] if rule else self.main
        )
        if rule is not None and self._common_indices():
            for i, combined in zip(self._common_indices(), rule.combine(*self.common()), strict=True):
                joined[i] = combined
        for parameter, gradient in zip(self.parameters, joined, strict=True):
            parameter.grad = gradient

    def _common_indices(self) -> list[int]:
        pairs = enumerate(zip(self.main, self.auxiliary, strict=True))
        return [i for i, (main, auxiliary) in pairs if main is not None and auxiliary is not None]


def layers_of_parameters(network: nn.Module) -> dict[str, str]:
    """Return, for each parameter by name, the module that it belongs to; quantizers belong to the layer that they serve."""
    layers = {name: name.rpartition(".")[0] for name, _ in network.named_parameters()}
    for module_name, module in network.named_modules():
        if isinstance(module, QModule):
            layers |= {f"{module_name}.{name}": module_name for name, _ in module.named_parameters()}
    return layers


def _add(sums: list[Tensor | None], gradients: Iterable[tuple[int, Tensor | None]]) -> None:
    for i, gradient in gradients:
        if gradient is not None:
            known = sums[i]
            sums[i] = gradient if known is None else known + gradient
