"""Quantized product of two activations."""

import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.quant.integers.products import GridValues, grid_values
from basicsr.quant.integers.sums import ActivationCodes, affine_sum
from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split
from basicsr.quant.modules.cost import Cost, bits_of
from basicsr.quant.quantizers.base import Quantizer
from basicsr.utils.registry import QMODULE_REGISTRY

_ROW_MULTIPLE = 8  # heads of SwinIR-light have 10 channels: products of such rows are slower than those of 16 channels


@QMODULE_REGISTRY.register("QMatMul")
class QMatMul(QModule[nn.Module]):
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

    def cost(self, inputs: tuple[Tensor, ...], output: Tensor, /) -> Cost:
        """Return one MAC for each output value and element of a row of the first factor."""
        pair = (bits_of(self.a_quantizer), bits_of(self.b_quantizer))
        return Cost("matmul", output.numel() * inputs[0].shape[-1], 0, (pair,))

    def integer_twin(self) -> nn.Module:
        """Return the product in integers."""
        return IntegerMatMul(self)

    def runtime_form(self, *, integer_linear: bool) -> nn.Module:  # noqa: ARG002 -- a product is never in integers
        """Return the product in floating point."""
        return RuntimeMatMul(self)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        a, b = self.a_quantizer(a), self.b_quantizer(b)
        if self.a_quantizer.bypass and self.b_quantizer.bypass:
            return a @ b  # the bits of the module that this one stands for
        return _aligned_product(a, b)


class IntegerMatMul(nn.Module):
    """Integer twin of QMatMul."""

    def __init__(self, source: QMatMul) -> None:
        super().__init__()
        self.a, self.b = ActivationCodes(source.a_quantizer), ActivationCodes(source.b_quantizer)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        left, right = self.a(a), self.b(b)
        rows, columns = left.sum(-1, keepdim=True), right.sum(-2, keepdim=True)  # ..., n, 1 and ..., 1, m
        return affine_sum(self.a.grid, self.b.grid, left @ right, rows, columns, a.shape[-1]).to(a.dtype)


class RuntimeMatMul(nn.Module):
    """Runtime twin of QMatMul, in floating point: K is the dimension of an attention head, too small to gain by integers."""

    def __init__(self, source: QMatMul) -> None:
        super().__init__()
        self.a, self.b = grid_values(source.a_quantizer), grid_values(source.b_quantizer)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        if isinstance(self.a, GridValues) and self.a.starts_at_zero:
            # an attention map has k = 64 columns, its product with the values a dimension of a head, m = 10: fewer to multiply by the step
            return (self.a.codes(a) @ self.b(b)) * self.a.grid[2]
        return self.a(a) @ self.b(b)


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
