"""The cosine between two gradients is a soft gate."""

from collections.abc import Sequence

from torch import Tensor

from basicsr.training.gradient_rules.agreement import Extent, LayerNames, cosines
from basicsr.training.gradient_rules.base import GradientRule
from basicsr.utils.registry import GRADIENT_RULE_REGISTRY


@GRADIENT_RULE_REGISTRY.register("CosineGate")
class CosineGateRule(GradientRule):
    """Cooperative regularisation of ODM (arXiv 2307.13337v2): main + (1 + cos(main, auxiliary)) / 2 * auxiliary.

    The auxiliary gradient counts fully where both point the same way, by half where they are orthogonal, and not at all where
    they are opposite.

    Args:
        extent: over what the cosine is taken: the whole network, each layer (weight, bias and what is learned of its
            quantizers), or each tensor. The paper does not say; its formula is over all parameters, hence the default. What
            the auxiliary loss does not reach, such as the layers behind the last quantizer, is no part of the network here:
            to count its main gradient would move the cosine towards 0 and say nothing of agreement.
    """

    def __init__(self, *, extent: Extent = "network") -> None:
        self._extent = extent

    def combine(self, main: Sequence[Tensor], auxiliary: Sequence[Tensor], layers: LayerNames) -> list[Tensor]:
        """Return the main gradient plus the gated auxiliary one."""
        gates = (cosines(main, auxiliary, layers, self._extent) + 1) / 2  # P
        return [a + gate * b for a, b, gate in zip(main, auxiliary, gates, strict=True)]
