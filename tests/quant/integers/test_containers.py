"""Eight bits hold what a quantizer says, exactly or as nearly as they are said to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from basicsr.quant.integers.containers import LARGEST_SUM, activation_container, largest_codes, weight_container
from basicsr.quant.integers.frozen import FrozenWeight
from basicsr.quant.spec import QuantSpec

BITS = st.integers(2, 8)


@given(lower=st.floats(-100, 100), width=st.floats(0.01, 100), bits=BITS)
def test_values_and_zero_lie_on_the_grid_of_an_activation(lower, width, bits):
    container = activation_container(lower, lower + width, bits)
    step = width / (2**bits - 1)
    if container is None:  # zero is farther away than 8 bits reach
        assert max(lower + width, -lower) > step * (largest_codes(bits)[0] - 1)
        return
    assert 0 <= container.zero_point <= largest_codes(bits)[0]
    fraction = step / container.step
    assert fraction == pytest.approx(round(fraction), abs=1e-6)
    assert abs(container.shift) <= container.step / 2 * (1 + 1e-6)
    for code in (0, 1, 2**bits - 1):
        integer = (lower + code * step + container.shift) / container.step + container.zero_point
        assert integer == pytest.approx(round(integer), abs=1e-5 * max(1, abs(lower) / step))
        assert 0 <= round(integer) <= largest_codes(bits)[0]


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_and_one_sided_activations_are_exact(bits):
    one_sided = activation_container(0.0, 3.0, bits)
    assert (one_sided.shift, one_sided.zero_point) == (0.0, 0)
    assert one_sided.step == pytest.approx(3.0 / (2**bits - 1))
    symmetric = activation_container(-3.0, 3.0, bits)
    if bits <= 6:
        assert symmetric.shift == pytest.approx(0, abs=1e-9)
        assert symmetric.zero_point == 2**bits - 1  # in half steps
    else:  # half steps do not fit: zero is half a step off
        assert abs(symmetric.shift) == pytest.approx(3.0 / (2**bits - 1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_sums_of_two_products_fit_into_16_bits(bits):
    activation, weight = largest_codes(bits)
    assert 2 * activation * weight <= LARGEST_SUM < 2 * activation * (weight + 1) or weight == 127
    assert activation >= 2**bits - 1


def frozen(lower, upper, bits, shape=(6, 5, 3, 3), seed=0):
    codes = torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return FrozenWeight(codes, torch.as_tensor(lower), torch.as_tensor(upper), QuantSpec(bits))


@given(lower=st.floats(-3, -0.01), upper=st.floats(0.01, 3), bits=BITS, seed=st.integers(0, 99))
def test_weights_are_moved_no_farther_than_said(lower, upper, bits, seed):
    weight = frozen(lower, upper, bits, seed=seed)
    largest = largest_codes(bits)[1]
    container = weight_container(weight, largest)
    assert container.codes.shape == weight.codes.shape and container.codes.dtype == torch.int8
    assert int(container.codes.abs().max()) <= largest
    step = (upper - lower) / (2**bits - 1)
    moved = (container.codes.double() * container.steps.double().view(-1, 1, 1, 1) - weight.values).abs() / step
    assert float(moved.max()) == pytest.approx(container.moved, abs=1e-3)
    finest = max(-lower, upper) / largest
    assert float(moved.max()) * step <= finest * (1 + 1e-3)  # at worst a step twice the finest, by half


@pytest.mark.parametrize("bits", range(2, 7))
def test_symmetric_weights_are_exact(bits):
    weight = frozen(-0.7, 0.7, bits)
    container = weight_container(weight, largest_codes(bits)[1])
    assert container.moved < 1e-6
    values = container.codes.float() * container.steps.view(-1, 1, 1, 1)
    torch.testing.assert_close(values, weight.values, rtol=1e-6, atol=1e-7)


def test_each_row_has_the_step_that_suits_it():
    codes = torch.zeros(2, 8, dtype=torch.uint8)
    codes[1, :4] = 15
    lower, upper = torch.tensor([-0.01, -1.0]), torch.tensor([0.01, 0.9])
    weight = FrozenWeight(codes, lower, upper, QuantSpec(4, granularity="per_channel", channel_axis=0))
    container = weight_container(weight, 127)
    torch.testing.assert_close(container.codes * container.steps[:, None], weight.values, rtol=1e-2, atol=1e-6)
    assert container.steps[0] < container.steps[1] / 10


def test_errors_of_a_row_cancel():
    weight = frozen(-0.913, 1.231, 4, shape=(16, 576))
    container = weight_container(weight, 127)
    errors = container.codes.double() * container.steps.double()[:, None] - weight.values
    step = (1.231 + 0.913) / 15
    assert float(errors.mean(1).abs().max()) < 0.003 * step
