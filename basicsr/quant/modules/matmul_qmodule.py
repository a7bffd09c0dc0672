"""Quantized product of two activations.

The first one may be a softmax map, quantized before its rows are divided by their sum. A softmax is e / sum e with e = exp(x - max x), so
that the largest e of each row is 1. With quantized values Q(e) the product with v is

    sum_j Q(e_j) v_j / sum_j Q(e_j).

One static grid over 0..1 then serves all rows, flat ones, whose shares are all small, as well as peaked ones. Weights of the mean of v sum to 1
again, so that errors of a row do not add up in it. Kernels of fused attention quantize e at 8 bits, too (SageAttention, arXiv 2410.02367).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.quant.integers.products import GridValues, grid_values
from basicsr.quant.integers.sums import ActivationCodes, affine_sum
from basicsr.quant.modules.base import QModule, QuantizerSlot, refuse_split
from basicsr.quant.modules.cost import Cost, bits_of
from basicsr.quant.quantizers.base import Quantizer
from basicsr.quant.spec import QuantizationError
from basicsr.utils.registry import QMODULE_REGISTRY

_ROW_TOLERANCE = 0.05  # of the sum of a row, in bfloat16 too
_ROW_MULTIPLE = 8  # heads of SwinIR-light have 10 channels: products of such rows are slower than those of 16 channels


@QMODULE_REGISTRY.register("QMatMul")
class QMatMul(QModule[nn.Module]):
    """A matrix product with two quantized factors.

    It replaces the parameter-free `MatMul` modules of the architectures, whose `forward(a, b)` returns `a @ b`. With `late_division`
    `a` is a softmax map: no value is below 0, and each row sums to 1.
    """

    source_type = "MatMul"
    a_quantizer: Quantizer
    b_quantizer: Quantizer

    @classmethod
    def slots(cls, _source: nn.Module, split: tuple[str, ...], /) -> list[QuantizerSlot]:
        """Return a slot for each factor."""
        refuse_split("QMatMul", split)
        return [QuantizerSlot("a_quantizer", "activation"), QuantizerSlot("b_quantizer", "activation")]

    def divide_late(self) -> None:
        """Quantize the first factor before its rows are divided by their sum, as the head of this file says."""
        self.late_division = True
        self._looked_at_rows = False

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
        given = undivided(a) if self.late_division else a
        left, right = self.a_quantizer(given), self.b_quantizer(b)
        if self.a_quantizer.bypass and self.b_quantizer.bypass:
            self._require_softmax(a)
            if left is given:  # and no hook has put something else in its place
                return a @ right  # the bits of the module that this one stands for
            if not self.late_division:
                return left @ right
        product = _aligned_product(left, right)
        return divided(product, left.sum(-1, keepdim=True)) if self.late_division else product

    def _require_softmax(self, a: Tensor) -> None:
        """Raise a QuantizationError where a first factor to divide late is no softmax map; the first call in full precision is looked at."""
        if not self.late_division or self._looked_at_rows:
            return
        self._looked_at_rows = True
        lowest, off = float(a.detach().min()), float((a.detach().float().sum(-1) - 1).abs().max())
        if lowest < 0 or off > _ROW_TOLERANCE:
            raise QuantizationError(
                f"'quantization:late_division' names the product of '{self.a_quantizer.name}', whose first factor is no softmax map: its least "
                f"value is {lowest:.3g}, and the sum of a row is {off:.3g} away from 1. Name products of softmax maps alone."
            )


class IntegerMatMul(nn.Module):
    """Integer twin of QMatMul."""

    def __init__(self, source: QMatMul) -> None:
        super().__init__()
        self.a, self.b = ActivationCodes(source.a_quantizer), ActivationCodes(source.b_quantizer)
        self.late_division = source.late_division

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        left, right = self.a(undivided(a) if self.late_division else a), self.b(b)
        rows, columns = left.sum(-1, keepdim=True), right.sum(-2, keepdim=True)  # ..., n, 1 and ..., 1, m
        product = affine_sum(self.a.grid, self.b.grid, left @ right, rows, columns, a.shape[-1])
        if self.late_division:
            product = divided(product, rows * self.a.grid.step + a.shape[-1] * self.a.grid.lower)
        return product.to(a.dtype)


class RuntimeMatMul(nn.Module):
    """Runtime twin of QMatMul, in floating point: K is the dimension of an attention head, too small to gain by integers."""

    def __init__(self, source: QMatMul) -> None:
        super().__init__()
        self.a, self.b = grid_values(source.a_quantizer), grid_values(source.b_quantizer)
        self.late_division = source.late_division

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply (..., n, k) by (..., k, m)."""
        if self.late_division:
            return self._divided_late(undivided(a), b)
        if isinstance(self.a, GridValues) and self.a.starts_at_zero:
            # an attention map has k = 64 columns, its product with the values a dimension of a head, m = 10: fewer to multiply by the step
            return (self.a.codes(a) @ self.b(b)) * self.a.grid[2]
        return self.a(a) @ self.b(b)

    def _divided_late(self, a: Tensor, b: Tensor) -> Tensor:
        in_codes = isinstance(self.a, GridValues) and self.a.starts_at_zero  # the step is on both sides of the division
        left = self.a.codes(a) if in_codes else self.a(a)  # type: ignore[operator, union-attr]
        return divided(left @ self.b(b), left.sum(-1, keepdim=True))


def undivided(a: Tensor) -> Tensor:
    """Return rows of a softmax (..., n, k) before their division: the largest value of each is 1.

    No gradient goes through that value, which the division behind the product takes out again.
    """
    return a / a.detach().amax(-1, keepdim=True)


def divided(product: Tensor, sums: Tensor) -> Tensor:
    """Return the product (..., n, m) divided by the sums of the rows of its first factor (..., n, 1); 0 where all of a row was rounded to 0."""
    return product / torch.where(sums > 0, sums, 1)


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
