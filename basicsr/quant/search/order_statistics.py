"""Exact order statistics of float32 data that are seen batch by batch, in bounded memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

_KEY_BITS = 32
_CHUNK = 2**16  # elements; what is computed from a chunk stays in the cache


class OrderStatistics:
    """Radix selection: each pass over the same data counts one more digit of the elements that can still be meant.

    The bits of a float32, read as an integer with the lower bits of negative numbers inverted, are in the order of
    the numbers, so counts of leading digits tell which leading digit the element of a given rank has. All is done in
    integers: results do not depend on how the data are cut, nor on their range.

    Args:
        digit_bits: 16 for two passes with 512 KiB per wanted element, 8 for four passes with 2 KiB.
    """

    def __init__(self, digit_bits: int) -> None:
        self._digit_bits = digit_bits
        self._known_bits = 0
        self._ranks: list[int] = []  # of the wanted elements, among those that share their known digits
        self._prefixes: list[int] = []  # known digits of the wanted elements
        self._counts: dict[int, Tensor] = {}  # known digits -> counts of the next digit

    def add(self, values: Tensor) -> None:
        """Count the next digit of a batch: float32, one axis."""
        active = set(self._prefixes) or {0}
        shift = _KEY_BITS - self._known_bits - self._digit_bits
        for chunk in values.split(_CHUNK):
            keys = _ordered_keys(chunk) >> shift
            for prefix in active:
                digits = keys - (prefix << self._digit_bits)
                if self._known_bits:
                    digits = digits[(digits >= 0) & (digits < 1 << self._digit_bits)]
                counts = torch.bincount(digits, minlength=1 << self._digit_bits)
                known = self._counts.get(prefix)
                self._counts[prefix] = counts if known is None else known.add_(counts)

    def count(self) -> int:
        """Return the number of elements; only in the first pass."""
        return int(self._counts[0].sum())

    def narrow(self, ranks: Sequence[int]) -> bool:
        """Close a pass; return True if another one is needed.

        Args:
            ranks: of the wanted elements, from 0; read at the end of the first pass.
        """
        if self._known_bits == 0:
            self._ranks, self._prefixes = list(ranks), [0] * len(ranks)
        cumulative = {prefix: counts.cumsum(0).cpu() for prefix, counts in self._counts.items()}
        for i, (rank, prefix) in enumerate(zip(self._ranks, self._prefixes, strict=True)):
            totals = cumulative[prefix]
            digit = int(torch.searchsorted(totals, rank, right=True))
            self._ranks[i] = rank - (int(totals[digit - 1]) if digit else 0)
            self._prefixes[i] = (prefix << self._digit_bits) + digit
        self._counts = {}
        self._known_bits += self._digit_bits
        return self._known_bits < _KEY_BITS

    def values(self) -> list[float]:
        """Return the elements of the wanted ranks, after the last pass."""
        return _values_of_keys(torch.tensor(self._prefixes, dtype=torch.int64)).tolist()


def _ordered_keys(values: Tensor) -> Tensor:
    """Return int64 numbers from 0 to 2**32 - 1 in the order of the float32 values."""
    bits = values.view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64).add_(2**31)


def _values_of_keys(keys: Tensor) -> Tensor:
    bits = (keys - 2**31).to(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)
