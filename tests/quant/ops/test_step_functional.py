"""Quantization by a step: values, and gradients against the formulas worked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.ops.step_functional import (
    fake_quantize_by_step,
    quantize_by_step,
    scale_gradient,
    staircase_slope,
    straight_through,
)


def test_values_and_codes_by_hand():
    x, step = torch.tensor([-9.0, -1.1, -0.2, 0.0, 0.24, 0.26, 0.9, 9.0]), torch.tensor(0.5)
    assert fake_quantize_by_step(x, step, -2, 1).tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    assert quantize_by_step(x, step, -2, 1).tolist() == [0, 0, 2, 2, 2, 3, 3, 3]
    assert fake_quantize_by_step(x, step, 0, 3).tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_gradients_by_hand():
    # v = x / 0.5 = -18, -1.6, 0.8, 18; codes -2, -2, 1, 1 of the range -2..1
    x = torch.tensor([-9.0, -0.8, 0.4, 9.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 4.0, 8.0])
    fake_quantize_by_step(x, step, -2, 1).backward(upstream)
    assert x.grad.tolist() == [0.0, 2.0, 4.0, 0.0]
    assert step.grad.item() == pytest.approx(1 * -2 + 2 * (-2 + 1.6) + 4 * (1 - 0.8) + 8 * 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans(), st.sampled_from([None, 0.3, 1.0, 5.0]), st.booleans())
def test_gradients_are_those_of_the_composition_of_clip_round_and_product(seed, bits, signed, temperature, per_channel):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, 7, generator=generator, dtype=torch.float64) * 3
    step = torch.rand(3 if per_channel else (), generator=generator, dtype=torch.float64) * 2 / 2**bits + 0.01
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    lowest = -(2 ** (bits - 1)) if signed else 0
    highest = lowest + 2**bits - 1

    def composition(x, step):
        step = step.view(1, -1, 1) if per_channel else step
        position = (x / step).clamp(lowest, highest)
        soft = position
        if temperature is not None:
            offset = position - position.detach().floor() - 0.5
            soft = position.detach().floor() + torch.tanh(temperature * offset) / (2 * math.tanh(temperature / 2))
        return (position.detach().round() + soft - soft.detach()) * step

    def function(x, step):
        axis = 1 if per_channel else None
        return fake_quantize_by_step(x, step, lowest, highest, axis, temperature=temperature)

    results = []
    for build in (composition, function):
        leaves = [x.clone().requires_grad_(), step.clone().requires_grad_()]
        output = build(*leaves)
        output.backward(upstream)
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 8.0])
def test_the_slope_of_the_staircase_is_one_on_average_and_largest_where_the_round_jumps(temperature):
    position = torch.linspace(-2, 2, 40001, dtype=torch.float64)[:-1]
    slope = staircase_slope(position, temperature)
    assert slope.mean().item() == pytest.approx(1.0, abs=1e-3)
    assert (position[slope.argmax()] % 1).item() == pytest.approx(0.5, abs=1e-3)
    spread = 1 / math.cosh(temperature / 2) ** 2
    assert (slope.min() / slope.max()).item() == pytest.approx(spread, abs=1e-3)


def test_steps_that_training_made_negative_keep_their_gradients():
    x, step = torch.tensor([-1.0, 1.0, 1.0], requires_grad=True), torch.tensor(-0.1, requires_grad=True)
    output = fake_quantize_by_step(x, step, -2, 1)
    output.sum().backward()
    assert output.abs().max() <= 2 * MINIMAL_WIDTH and bool(output.isfinite().all())
    assert step.grad.item() == -2 + 1 + 1


def test_straight_through_gives_the_very_values_and_the_gradient_of_the_identity():
    x = torch.randn(50, requires_grad=True)
    values = (x.detach() * 3).round() / 3
    output = straight_through(x, values)
    assert torch.equal(output, values)
    output.backward(torch.arange(50.0))
    assert x.grad.tolist() == list(range(50))


def test_scaling_a_gradient_leaves_the_value():
    x = torch.tensor(0.3, requires_grad=True)
    output = scale_gradient(x, torch.tensor(0.25))
    assert torch.equal(output, x)
    (2 * output).backward()
    assert x.grad.item() == 0.5


@pytest.mark.gpu
def test_a_gpu_reads_nothing_back():
    x, step = torch.randn(64, device="cuda", requires_grad=True), torch.tensor(0.1, device="cuda", requires_grad=True)
    lowest = torch.tensor(-8.0, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        fake_quantize_by_step(x, step, lowest, lowest + 15, temperature=1.0).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
