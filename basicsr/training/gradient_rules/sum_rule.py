"""Gradients are added."""

from collections.abc import Sequence

from torch import Tensor

from basicsr.training.gradient_rules.agreement import LayerNames
from basicsr.training.gradient_rules.base import GradientRule
from basicsr.utils.registry import GRADIENT_RULE_REGISTRY


@GRADIENT_RULE_REGISTRY.register("Sum")
class SumRule(GradientRule):
    """The plain sum, whether or not the gradients agree: the "naive" regularisation in the ablation of ODM."""

    def combine(self, main: Sequence[Tensor], auxiliary: Sequence[Tensor], _layers: LayerNames) -> list[Tensor]:
        """Return the sum of both gradients."""
        return [a + b for a, b in zip(main, auxiliary, strict=True)]
