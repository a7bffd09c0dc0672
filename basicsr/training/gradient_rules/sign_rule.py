"""Only elements on whose sign two gradients agree take part."""

from collections.abc import Sequence

from torch import Tensor

from basicsr.training.gradient_rules.agreement import LayerNames
from basicsr.training.gradient_rules.base import GradientRule
from basicsr.utils.registry import GRADIENT_RULE_REGISTRY


@GRADIENT_RULE_REGISTRY.register("SignGate")
class SignGateRule(GradientRule):
    """Cooperation by signs, as in the first version of ODM (arXiv 2307.13337v1).

    An element of the auxiliary gradient is added where it has the sign of the same element of the main gradient, and dropped
    elsewhere.
    """

    def combine(self, main: Sequence[Tensor], auxiliary: Sequence[Tensor], _layers: LayerNames) -> list[Tensor]:
        """Return the main gradient plus the agreeing elements of the auxiliary one."""
        return [a + b * (a.sign() == b.sign()) for a, b in zip(main, auxiliary, strict=True)]
