"""Quantized product of two activations."""

import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split
from basicsr.quant.quantizers.base import Quantizer
from basicsr.utils.registry import QMODULE_REGISTRY

_ROW_MULTIPLE = 8  # heads of SwinIR-light have 10 channels: products of such rows are slower than those of 16 channels


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
        a, b = self.a_quantizer(a), self.b_quantizer(b)
        if self.a_quantizer.bypass and self.b_quantizer.bypass:
            return a @ b  # the bits of the module that this one stands for
        return _aligned_product(a, b)


def _aligned_product(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b`; on a CPU with rows continued by zeros to aligned lengths, which is faster forwards and backwards."""
    if not a.is_cpu:
        return a @ b
    columns, rows = -b.shape[-1] % _ROW_MULTIPLE, -b.shape[-2] % _ROW_MULTIPLE
    if rows:
        a = F.pad(a, (0, rows))
    if rows or columns:
        b = F.pad(b, (0, columns, 0, rows))
    return (a @ b)[..., :-columns] if columns else a @ b
