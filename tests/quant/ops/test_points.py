"""Rounding to the nearest of a few points: values by hand, gradients, layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.ops import points

POINTS = torch.tensor([-1.0, 0.0, 0.5, 4.0])


@pytest.mark.parametrize(
    ("x", "code"), [(-7.0, 0), (-0.5, 0), (-0.4, 1), (0.2, 1), (0.25, 1), (0.26, 2), (2.25, 2), (2.3, 3), (90.0, 3)]
)
def test_the_nearest_point_is_taken_and_of_two_the_lower_one(x, code):
    assert points.quantize(torch.tensor([x]), POINTS).tolist() == [code]
    assert points.fake_quantize(torch.tensor([x]), POINTS).tolist() == [POINTS[code].item()]


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=30),
    grid=st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=80),
)
def test_no_point_is_nearer_than_the_one_that_is_taken(values, grid):
    x, grid = torch.tensor(values), torch.tensor(grid)
    y = points.fake_quantize(x, grid)
    assert set(y.tolist()) <= set(grid.tolist())
    nearest = (x.double()[:, None] - grid.double()).abs().amin(dim=1)
    torch.testing.assert_close((x.double() - y.double()).abs(), nearest, atol=1e-5, rtol=0)


def test_a_point_gets_the_gradients_of_what_is_rounded_to_it():
    x = torch.tensor([-2.0, -0.9, 0.1, 0.4, 0.6, 5.0], requires_grad=True)
    unordered = torch.tensor([4.0, 0.0, -1.0, 0.5], requires_grad=True)
    points.fake_quantize(x, unordered).backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    assert unordered.grad.tolist() == [32.0, 4.0, 3.0, 24.0]
    assert x.grad.tolist() == [0.0, 2.0, 4.0, 8.0, 16.0, 0.0]  # straight through from the lowest point to the highest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_and_type_stay(layout, dtype):
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype, memory_format=layout)
    x.requires_grad_()
    grid = POINTS.clone().requires_grad_()
    y = points.fake_quantize(x, grid)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype and y.stride() == x.grad.stride() == x.stride()
    assert grid.grad.dtype == torch.float32 and grid.grad.sum() == x.numel()
    assert torch.equal(points.quantize(x.detach(), POINTS), points.quantize(x.detach().contiguous(), POINTS))
