"""What a gradient rule is: it says how much of an auxiliary loss's gradient joins that of the main loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from basicsr.training.gradient_rules.agreement import LayerNames


class GradientRule(ABC):
    """Combines the gradients of two losses into the one that the optimiser gets.

    Both are gradients over the same parameters: those that both losses reach and may change. The main gradient of the others
    goes to the optimiser as it is. With several processes, gradients are averaged before they are combined, so that all
    processes find the same.
    """

    @abstractmethod
    def combine(self, main: Sequence[Tensor], auxiliary: Sequence[Tensor], layers: LayerNames) -> list[Tensor]:
        """Return the combined gradients.

        Args:
            main: gradient of the main loss for each parameter.
            auxiliary: gradient of the auxiliary loss, its weight included, in the same shapes.
            layers: name of the layer that each parameter belongs to.
        """
