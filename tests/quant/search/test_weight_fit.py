"""Least squares for the weight of a layer, and rounding with compensated errors, against numbers worked out in other ways."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.search.weight_fit import InputMoments, compensated_rounding, fitted_weight
from basicsr.quant.spec import QuantizationError

LOWER, UPPER, MAX_CODE = torch.tensor([[-1.0]]), torch.tensor([[1.0]]), 3  # -1, -1/3, 1/3, 1


def correlated(seed=0, features=4, count=500):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, features, generator=generator) @ torch.randn(features, features, generator=generator)
    return x, x + 0.2 * torch.randn(count, features, generator=generator)


def moments_of(x, z, parts=1):
    moments = InputMoments(x.shape[1])
    for a, b in zip(x.chunk(parts), z.chunk(parts), strict=True):
        moments.update(a, b)
    return moments


def test_moments_do_not_depend_on_batches():
    x, z = correlated()
    whole, parts = moments_of(x, z).second(0.01), moments_of(x, z, 7).second(0.01)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_fitted_weight_is_that_of_least_squares():
    x, z = correlated()
    weight = torch.randn(3, 4)
    found = fitted_weight(weight, *moments_of(x + 5, z - 3).second(1e-9))  # means are the business of the bias
    expected = torch.linalg.lstsq((z - z.mean(0)).double(), ((x - x.mean(0)) @ weight.T).double()).solution.T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_without_a_bias_means_count_too():
    x, z = correlated()
    weight = torch.randn(3, 4)
    found = fitted_weight(weight, *moments_of(x + 5, z + 3).second(1e-9, central=False))
    expected = torch.linalg.lstsq((z + 3).double(), ((x + 5) @ weight.T).double()).solution.T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_inputs_about_a_large_value_have_the_moments_of_those_about_0():
    x, z = correlated()
    for one, other in zip(
        moments_of(x, z, 3).second(0.01), moments_of(x + 1000, z + 1000, 3).second(0.01), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_without_quantized_inputs_the_weight_stays():
    x, _ = correlated()
    weight = torch.randn(3, 4)
    torch.testing.assert_close(fitted_weight(weight, *moments_of(x, x).second(0.01)), weight.double())


def test_inputs_that_hardly_vary_keep_their_weight():
    x = torch.randn(500, 3)
    z = x.clone()
    z[:, 2] *= 1e-6
    found = fitted_weight(torch.ones(1, 3), *moments_of(x * torch.tensor([1.0, 1.0, 0.0]), z).second(0.01))
    torch.testing.assert_close(found, torch.ones(1, 3).double(), rtol=1e-2, atol=1e-2)


def test_independent_inputs_are_rounded_to_the_nearest():
    weight = torch.linspace(-1.4, 1.4, 12).view(2, 6)
    found = compensated_rounding(weight, torch.diag(torch.arange(1.0, 7)).double(), LOWER, UPPER, MAX_CODE)
    nearest = ((weight.double() + 1) * 1.5).round().clamp(0, 3) / 1.5 - 1
    torch.testing.assert_close(found, nearest)


def test_two_inputs_by_hand():
    # the first input, whose variance is larger, goes from 0.2 to 1/3; H = [[2, 1], [1, 1]] lets the second take back (1/3 - 0.2) * H12 / H22
    zz = torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    found = compensated_rounding(torch.tensor([[0.2, 0.1]]), zz, LOWER, UPPER, MAX_CODE)
    assert 0.1 - (1 / 3 - 0.2) < 0 < 0.1  # so that the second goes to -1/3 and not, as the nearest of 0.1 is, to 1/3
    torch.testing.assert_close(found, torch.tensor([[1 / 3, -1 / 3]]).double())


def rounded_and_error(seed):
    """Return compensated roundings, and their error as a share of that of the nearest values."""
    x, _ = correlated(seed, 5)
    _, zz = moments_of(x, x).second(0.01)
    weight = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed)) * 0.4
    found = compensated_rounding(weight, zz, LOWER, UPPER, MAX_CODE)
    nearest = ((weight.double() + 1) * 1.5).round().clamp(0, 3) / 1.5 - 1
    changes = (rounded - weight.double() for rounded in (found, nearest))
    compensated, plain = (float(((change @ zz) * change).sum()) for change in changes)
    return found, compensated / plain


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_all_values_lie_on_the_grid(seed):
    found, _ = rounded_and_error(seed)
    grid = torch.tensor([-1, -1 / 3, 1 / 3, 1], dtype=torch.float64)
    assert float((found.unsqueeze(-1) - grid).abs().amin(-1).max()) < 1e-7


def test_errors_are_compensated_on_average():
    """It is greedy, so that it is a little worse now and then, as with the seed 905."""
    shares = [rounded_and_error(seed)[1] for seed in (*range(30), 905)]
    assert sum(shares) / len(shares) < 0.7 and max(shares) < 1.07


def test_it_is_near_the_best_of_all_roundings():
    x, _ = correlated(3, 4)
    _, zz = moments_of(x, x).second(0.01)
    grid = [-1, -1 / 3, 1 / 3, 1]
    choices = torch.tensor(list(itertools.product(grid, repeat=4))).double()
    weights = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)) * 0.4
    found = compensated_rounding(weights, zz, LOWER, UPPER, MAX_CODE)
    total, best = 0.0, 0.0
    for weight, rounded in zip(weights.double(), found, strict=True):
        errors = (((choices - weight) @ zz) * (choices - weight)).sum(1)
        best += float(errors.min())
        total += float(((rounded - weight) @ zz) @ (rounded - weight))
    assert best <= total < 2 * best


def test_inputs_that_do_not_vary_say_so_and_those_that_are_not_finite_are_refused():
    x, z = correlated()
    assert moments_of(x, z).vary
    assert not moments_of(torch.ones(10, 3), torch.ones(10, 3)).vary
    assert not moments_of(torch.zeros(10, 3), torch.zeros(10, 3)).vary
    with pytest.raises(QuantizationError, match="not finite"):
        moments_of(x, torch.full_like(z, float("nan"))).second(0.01)
