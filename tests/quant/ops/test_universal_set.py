"""Universal sets: their values, and the words that values are the sums of."""

import numpy as np
import pytest
import torch

from basicsr.quant.ops.universal_set import MAX_NUMBER, numbered_word_sets, universal_set
from basicsr.quant.spec import QuantizationError


def sums_of_words(universal):
    chosen = torch.stack([words[universal.word_indices[:, s].long()] for s, words in enumerate(universal.word_sets)])
    return chosen.double().sum(dim=0)


def test_parity(reference):
    arrays = np.load(reference / "dfsq.npz")
    universal = universal_set(4)
    np.testing.assert_array_equal(universal.values, arrays["uset_signed"])
    np.testing.assert_array_equal(universal.values[universal.values >= 0], arrays["uset_nonneg"])


def test_the_set_of_the_released_code():
    universal = universal_set(4)
    assert len(universal) == 377
    assert universal.resolution == 1024
    assert universal.values[0] == -1
    assert universal.values[-1] == 1
    given = universal_set([[1, 2**-1, 2**-5, 0], [1, 2**-2, 2**-6, 0], [1, 2**-3, 2**-7, 0], [1, 2**-4, 2**-8, 0]])
    assert torch.equal(given.numerators, universal.numerators)


@pytest.mark.parametrize("word_sets", [1, 2, 3, 4, 5, [[0.5, 0.25], [0, 1, 2]], [[0.125, 0]]])
def test_every_value_is_the_sum_of_its_words(word_sets):
    universal = universal_set(word_sets)
    largest = universal.word_sets.amax(dim=1).sum().double()
    torch.testing.assert_close(sums_of_words(universal) / largest, universal.values.abs(), rtol=0, atol=1e-15)
    assert (universal.values.diff() > 0).all()
    assert torch.equal(universal.values.flip(0), -universal.values)
    assert universal.word_indices.shape == (len(universal), len(universal.word_sets))


def test_all_sums_are_there():
    sets = numbered_word_sets(2)
    expected = {sign * (a + b) / 2 for a in sets[0] for b in sets[1] for sign in (1, -1)}
    assert set(universal_set(2).values.tolist()) == expected


def test_the_fewest_words_are_taken():
    universal = universal_set([[0.5, 0], [0.5, 0], [1, 0]])  # 1 is 0.5 + 0.5 or 1
    one = int((universal.values == 0.5).nonzero())
    assert universal.word_indices[one].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("word_sets", "message"),
    [
        (0, "number of word sets is 0, but must be from 1 to 5"),
        (MAX_NUMBER + 1, "number of word sets is 6"),
        ([[1, 0.3]], "hold 0.3, but words must be 0 or powers of two"),
        ([[1, -0.5]], "hold -0.5"),
        ([[1, float("inf")]], "hold inf"),
        ([[1, float("nan")]], "hold nan"),
        ([[1], []], "each needs a word"),
        ([], "one word must not be 0"),
        ([[0, 0]], "one word must not be 0"),
        ([[1, 2**-15]], "too fine: the largest sum is 1 and the smallest word 3.05176e-05"),
        ([[1, 0.5, 0.25, 0]] * 9, "in 262144 combinations"),
    ],
)
def test_refusals(word_sets, message):
    with pytest.raises(QuantizationError, match=message):
        universal_set(word_sets)


@pytest.mark.parametrize(("number", "values"), [(1, 7), (2, 29), (3, 107), (4, 377), (5, 1295)])
def test_numbers_of_word_sets_have_the_numbers_of_values_that_the_page_states(number, values):
    assert len(universal_set(number)) == values
