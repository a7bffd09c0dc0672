"""Bounds with 0 on their grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.ops.zero_point import with_integer_zero_point


def released(x, lower, upper, bits):
    """Codes with a rounded zero point, straight-through, as the released code of DDTB computes them."""
    scale = (2**bits - 1) / (upper - lower)

    def rounded(value):
        return value + (value.round() - value).detach()

    zero_point = rounded(scale * lower)
    clipped = torch.max(torch.min(x, upper), lower)
    return (rounded(scale * clipped - zero_point) + zero_point) / scale


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_values_and_gradients_are_those_of_the_released_code(seed, bits):
    generator = torch.Generator().manual_seed(seed)
    lower = -3 * torch.rand((), generator=generator, dtype=torch.float64)
    upper = lower + 0.1 + 5 * torch.rand((), generator=generator, dtype=torch.float64)
    step = float(upper - lower) / (2**bits - 1)
    x = torch.randn(400, generator=generator, dtype=torch.float64) * 3
    # between a bound and where it moves to, the two differ in what they count as clipped, and in nothing else
    x = x[((x - lower).abs() > step) & ((x - upper).abs() > step)]
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    results = []
    for function in (
        released,
        lambda x, lo, up, bits: fake_quantize(x, *with_integer_zero_point(lo, up, bits), bits),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, lower, upper)]
        output = function(leaves[0], leaves[1], leaves[2], bits)
        output.backward(upstream)
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


def test_zero_is_a_value_and_there_are_no_more_of_them_than_codes():
    # steps of 1: both bounds are ties, which the released code rounds away from each other, to -2 and 2
    lower, upper, x = torch.tensor(-1.5), torch.tensor(1.5), torch.linspace(-4, 4, 801)
    assert released(x, lower, upper, 2).unique().tolist() == [-2, -1, 0, 1, 2]
    assert fake_quantize(x, *with_integer_zero_point(lower, upper, 2), 2).unique().tolist() == [-2, -1, 0, 1]


def test_bounds_move_by_less_than_a_step_and_keep_their_distance():
    lower, upper = torch.tensor([-1.0, 0.0, 0.3]), torch.tensor([1.1, 1.0, 2.4])
    moved = with_integer_zero_point(lower, upper, 3)
    step = (upper - lower) / 7
    torch.testing.assert_close(moved[1] - moved[0], upper - lower)
    assert bool(((moved[0] - lower).abs() <= step / 2 + 1e-6).all())
    torch.testing.assert_close(moved[0] / step, (lower / step).round())


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 1.0), (2.0, 1.0)])
def test_crossed_bounds_stay_finite_and_can_move_apart(lower, upper):
    bounds = (torch.tensor(lower, requires_grad=True), torch.tensor(upper, requires_grad=True))
    output = fake_quantize(torch.tensor([0.0, 3.0]), *with_integer_zero_point(*bounds, 4), 4)
    output.sum().backward()
    assert bool(output.isfinite().all())
    assert all(bool(bound.grad.isfinite()) for bound in bounds)
    assert bounds[1].grad > 0
