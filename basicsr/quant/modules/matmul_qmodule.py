"""Quantized product of two activations."""

from torch import Tensor, nn

from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split
from basicsr.quant.quantizers.base import Quantizer
from basicsr.utils.registry import QMODULE_REGISTRY


@QMODULE_REGISTRY.register("QMatMul")
class QMatMul(QModule):
    """A matrix product with two quantized factors.

    It replaces the parameter-free `MatMul` modules of the architectures, whose `forward(a, b)` returns `a @ b`.
    """

    source_type = "MatMul"
    a_quantizer: Quantizer
    b_quantizer: Quantizer

    @classmethod
    def slots(cls, _source: nn.Module, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return a slot for each factor."""
        refuse_split("QMatMul", split)
        return [QuantizerSlot("a_quantizer", "activation"), QuantizerSlot("b_quantizer", "activation")]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        return self.a_quantizer(a) @ self.b_quantizer(b)
