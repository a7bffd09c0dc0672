"""The steps for Gaussian data are the best ones."""

import math

import pytest
import torch

from basicsr.quant.ops.gaussian import OPTIMAL_STEPS


def mean_squared_error(step, levels):
    """Numerical integral of (x - q(x))**2 over the standard normal density."""
    x = torch.linspace(-12, 12, 1_200_001, dtype=torch.float64)
    value = (torch.floor(x / step).clamp(-levels / 2, levels / 2 - 1) + 0.5) * step
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid((x - value).square() * density, x))


@pytest.mark.parametrize("bits", sorted(OPTIMAL_STEPS))
def test_neither_a_larger_nor_a_smaller_step_is_better(bits):
    step, levels = OPTIMAL_STEPS[bits], 2**bits
    least = mean_squared_error(step, levels)
    assert least < mean_squared_error(step * 0.995, levels)
    assert least < mean_squared_error(step * 1.005, levels)
