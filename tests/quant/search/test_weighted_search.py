"""Weighted squared errors of bounds, and the bounds with the smallest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.search.weighted_search import WeightedErrors, search_weighted


def data(seed, number=500):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, generator=generator), torch.rand(number, generator=generator)


def error_of(values, weights, lower, upper, bits):
    x = values.double()
    quantized = fake_quantize(x, torch.tensor(lower).double(), torch.tensor(upper).double(), bits)
    return float((weights.double() * (x - quantized).square()).sum())


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    bits=st.integers(2, 8),
    lower=st.floats(-5, 1.5),
    width=st.floats(0.01, 6),
)
def test_errors_are_those_of_quantized_values(seed, bits, lower, width):
    values, weights = data(seed)
    errors = WeightedErrors(values, weights, 2**bits - 1)
    found = errors(torch.tensor([lower]).double(), torch.tensor([lower + width]).double())
    assert float(found) == pytest.approx(error_of(values, weights, lower, lower + width, bits), rel=1e-5, abs=1e-9)


def test_an_outlier_without_weight_does_not_stretch_the_grid():
    values, weights = data(0)
    values[0], weights[0] = 5000.0, 0.0
    found = search_weighted(WeightedErrors(values, weights, 15))
    without = search_weighted(WeightedErrors(values[1:], weights[1:], 15))
    assert found.upper < 4
    assert found.error == pytest.approx(without.error, rel=0.02)


def test_heavy_elements_decide():
    values = torch.cat([torch.linspace(0, 1, 200), torch.linspace(10, 11, 200)])
    weights = torch.cat([torch.ones(200), torch.full((200,), 1e-6)])
    found = search_weighted(WeightedErrors(values, weights, 3))
    assert found.lower == pytest.approx(0.125, abs=0.03)
    assert found.upper == pytest.approx(0.875, abs=0.03)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.integers(2, 6), symmetric=st.booleans())
def test_no_pair_of_a_dense_grid_is_much_better(seed, bits, symmetric):
    values, weights = data(seed)
    errors = WeightedErrors(values, weights, 2**bits - 1)
    found = search_weighted(errors, symmetric=symmetric)
    shares = torch.linspace(0.02, 1, 50).double()
    if symmetric:
        upper = shares * float(values.abs().max())
        others = errors(-upper, upper)
        assert found.lower == -found.upper
    else:
        pairs = torch.cartesian_prod(shares * float(values.min()), shares * float(values.max()))
        others = errors(pairs[:, 0], pairs[:, 1])
    assert found.error <= 1.05 * float(others.min())
    assert found.error == pytest.approx(error_of(values, weights, found.lower, found.upper, bits), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.sampled_from([2.0**-20, 0.5, 2.0**20]))
def test_bounds_follow_the_scale_of_the_values(seed, factor):
    values, weights = data(seed)
    found = search_weighted(WeightedErrors(values, weights, 7))
    scaled = search_weighted(WeightedErrors(values * factor, weights, 7))
    assert scaled.lower == pytest.approx(found.lower * factor, rel=1e-6)
    assert scaled.upper == pytest.approx(found.upper * factor, rel=1e-6)


def test_values_of_one_side_keep_their_end():
    values = torch.relu(data(1)[0])
    found = search_weighted(WeightedErrors(values, torch.ones(500), 15))
    assert found.lower == 0
    assert 0 < found.upper <= float(values.max())


@pytest.mark.parametrize(("value", "weight"), [(1.5, 1.0), (None, 0.0)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_there_is_nothing_to_choose(value, weight, symmetric):
    values = data(0)[0] if value is None else torch.full((20,), value)
    found = search_weighted(WeightedErrors(values, torch.full_like(values, weight), 15), symmetric=symmetric)
    assert found is None or (symmetric and value is not None)
