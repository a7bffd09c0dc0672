"""Universal sets of DFSQ (arXiv 2305.05888): sums of one word of each of several word sets, with both signs.

Words are 0 or powers of two, so that multiplying by a value of the set takes shifts and additions. Values are divided by the
largest sum and so reach from -1 to 1, like normalised activations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from basicsr.quant.spec import QuantizationError

MAX_NUMBER = 5
MAX_RESOLUTION = 2**14
_MAX_COMBINATIONS = 2**16

WordSets = int | Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class UniversalSet:
    """The values that the points of subset quantizers are chosen from, with their words.

    The value i is sign * sum over s of word_sets[s, word_indices[i, s]] / largest sum, with the sign of the value.

    Attributes:
        word_sets: float32 (S, W); shorter sets are filled up with zeros that no index names.
        numerators: int64 (V,), ascending; the values are `numerators / resolution`.
        resolution: the largest sum in units of the smallest word; 1024 for the set of the released code.
        word_indices: uint8 (V, S). Of several decompositions, the one with the fewest words other than 0.
    """

    word_sets: Tensor
    numerators: Tensor
    resolution: int
    word_indices: Tensor

    @property
    def values(self) -> Tensor:
        """The values, float64 (V,), ascending from -1 to 1, symmetric about 0."""
        return self.numerators.double() / self.resolution

    def __len__(self) -> int:
        return len(self.numerators)


def numbered_word_sets(number: int) -> tuple[tuple[float, ...], ...]:
    """Return the word sets {1, 2^-i, 2^-(i + number), 0} for i from 1 to `number`; for 4, those of the released code.

    Args:
        number: 1 to `MAX_NUMBER`.

    Raises:
        QuantizationError: another number.
    """
    if not 1 <= number <= MAX_NUMBER:
        raise QuantizationError(
            f"The number of word sets is {number}, but must be from 1 to {MAX_NUMBER}; give the sets themselves as lists of words."
        )
    return tuple((1.0, 2.0**-i, 2.0 ** -(i + number), 0.0) for i in range(1, number + 1))


def universal_set(word_sets: WordSets) -> UniversalSet:
    """Return the universal set of word sets.

    Args:
        word_sets: how many of them (see `numbered_word_sets`), or the words of each.

    Raises:
        QuantizationError: a set is empty or has a word that is neither 0 nor a positive power of two, all words are 0, or the
            largest sum is more than `MAX_RESOLUTION` times the smallest word.
    """
    if isinstance(word_sets, int):
        return _build(numbered_word_sets(word_sets))
    return _build(tuple(tuple(float(word) for word in words) for words in word_sets))


@lru_cache(maxsize=16)
def _build(word_sets: tuple[tuple[float, ...], ...]) -> UniversalSet:
    smallest, resolution = _check(word_sets)
    combinations = torch.cartesian_prod(*(torch.arange(len(words)) for words in word_sets)).reshape(-1, len(word_sets))
    chosen = torch.stack(
        [torch.tensor(words, dtype=torch.float64)[combinations[:, s]] for s, words in enumerate(word_sets)], dim=1
    )  # combinations, S
    sums = (chosen.sum(dim=1) / smallest).long()
    fewest_first = chosen.count_nonzero(dim=1).argsort(stable=True)
    order = fewest_first[sums[fewest_first].argsort(stable=True)]
    ascending = sums[order]
    first = torch.ones_like(ascending, dtype=torch.bool)
    first[1:] = ascending[1:] != ascending[:-1]
    numerators, indices = ascending[first], combinations[order[first]].to(torch.uint8)
    positive = numerators > 0
    width = max(len(words) for words in word_sets)
    return UniversalSet(
        word_sets=torch.tensor([[*words, *[0.0] * (width - len(words))] for words in word_sets]),
        numerators=torch.cat([-numerators[positive].flip(0), numerators]),
        resolution=resolution,
        word_indices=torch.cat([indices[positive].flip(0), indices]),
    )


def _check(word_sets: tuple[tuple[float, ...], ...]) -> tuple[float, int]:
    """Return the smallest word that is not 0, and the largest sum in units of it."""
    words = [word for one_set in word_sets for word in one_set]
    for word in words:
        if word != 0 and not (math.isfinite(word) and word > 0 and math.frexp(word)[0] == 0.5):
            raise QuantizationError(
                f"The word sets hold {word:g}, but words must be 0 or powers of two, such as 1, 0.5 and 0.03125."
            )
    if not all(word_sets) or not any(words):
        raise QuantizationError(
            f"The word sets are {[list(one_set) for one_set in word_sets]}, but each needs a word, and one word must not be 0."
        )
    smallest = min(word for word in words if word > 0)
    largest_sum = sum(max(one_set) for one_set in word_sets)
    if largest_sum > MAX_RESOLUTION * smallest or math.prod(map(len, word_sets)) > _MAX_COMBINATIONS:
        raise QuantizationError(
            f"The word sets are too fine: the largest sum is {largest_sum:g} and the smallest word {smallest:g}, in "
            f"{math.prod(map(len, word_sets))} combinations. At most {MAX_RESOLUTION} times the smallest word and "
            f"{_MAX_COMBINATIONS} combinations are possible; leave out words or sets."
        )
    return smallest, round(largest_sum / smallest)
