import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.kernels.fused import fused_quantizers, rows_of
from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.ops.step_functional import fake_quantize_by_step

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
KINDS = st.sampled_from(
    [{}, {"exact_zeros": True}, {"threshold_window": 0.25}, {"threshold_window": 0.5, "exact_zeros": True}]
)
LAYOUTS = st.sampled_from(["contiguous", "channels_last", "transposed", "every second"])


def laid_out(x, layout):
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x.repeat_interleave(2, 3)[..., ::2] if layout == "every second" else x


def passes(function, x, parameters, upstream, fused):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in parameters]
    inputs = x.detach().requires_grad_()
    with fused_quantizers(fused):
        y = function(inputs, *leaves)
        return [y.detach(), *torch.autograd.grad(y, (inputs, *leaves), upstream)]


def compare(function, x, parameters, upstream):
    """Values and gradients of inputs are equal to the last bit; sums are as near as those of float64 are."""
    plain, fused = (passes(function, x, parameters, upstream, on) for on in (False, True))
    assert torch.equal(plain[0], fused[0]) and plain[0].dtype == fused[0].dtype
    assert torch.equal(plain[1], fused[1])
    exact = passes(function, x.double(), [p.double() for p in parameters], upstream.double(), False)
    room = 2e-6 * float(upstream.double().abs().sum()) + 1e-6
    for of_loop, of_torch in zip(fused[2:], exact[2:], strict=True):
        assert of_loop.dtype == torch.float32
        assert float((of_loop - of_torch).abs().max()) <= room


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 12), st.integers(1, 40)),
    bits=st.integers(2, 8), kind=KINDS, layout=LAYOUTS, per_channel=st.booleans(), half=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_loops_are_the_operators_of_torch(shape, bits, kind, layout, per_channel, half, seed):
    generator = torch.Generator().manual_seed(seed)
    x = laid_out(torch.randn(shape, generator=generator).relu_(), layout).to(torch.bfloat16 if half else torch.float32)
    bounds = [
        -torch.rand(shape[0] if per_channel else (), generator=generator),
        0.1 + torch.rand(shape[0] if per_channel else (), generator=generator),
    ]
    upstream = laid_out(torch.randn(shape, generator=generator), layout).to(x.dtype)
    compare(lambda *a: fake_quantize(*a, bits, 0 if per_channel else None, **kind), x, bounds, upstream)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 40)),
    bits=st.integers(2, 8), per_channel=st.booleans(), half=st.booleans(), as_tensors=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_loops_by_step_are_the_operators_of_torch(shape, bits, per_channel, half, as_tensors, seed):
    generator = torch.Generator().manual_seed(seed)
    x, upstream = (
        torch.randn(shape, generator=generator).to(torch.bfloat16 if half else torch.float32) for _ in range(2)
    )
    step = 0.05 + torch.rand(shape[0] if per_channel else (), generator=generator)
    codes = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = tuple(map(torch.tensor, codes)) if as_tensors else codes
    compare(lambda v, s: fake_quantize_by_step(v, s, *codes, 0 if per_channel else None), x, [step], upstream)


def test_long_tensors_are_cut_into_chunks_whose_sums_do_not_depend_on_threads():
    x, upstream = (torch.randn(3, 50_001, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    bounds = [torch.tensor(-1.0), torch.tensor(0.7)]
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(passes(lambda *a: fake_quantize(*a, 4), x, bounds, upstream, True))
    finally:
        torch.set_num_threads(threads)
    compare(lambda *a: fake_quantize(*a, 4), x, bounds, upstream)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_gradients_by_hand():
    x, upstream = torch.tensor([-2.0, -1.0, 0.4, 0.0, 3.0]), torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0])
    bounds = [torch.tensor(-1.0), torch.tensor(2.0)]  # 2 bits: the grid is -1, 0, 1, 2
    y, of_x, of_lower, of_upper = passes(lambda *a: fake_quantize(*a, 2), x, bounds, upstream, True)
    assert y.tolist() == [-1, -1, 0, 0, 2]
    assert of_x.tolist() == [0, 10, 100, 1000, 0]
    residual = (1 - 1.4) / 3 * 100
    assert float(of_lower) == pytest.approx(11 - residual, rel=1e-6)
    assert float(of_upper) == pytest.approx(10000 + residual, rel=1e-6)


@pytest.mark.parametrize(
    "values", [[float("nan"), 1.0, -1.0], [float("inf"), float("-inf"), 0.0], [1e-45, -1e-45, 3e38]]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_are_no_numbers_are_what_torch_makes_of_them(values, dtype):
    x, bounds = torch.tensor(values, dtype=dtype), (torch.tensor(-0.5), torch.tensor(0.5))
    with fused_quantizers():
        fused = fake_quantize(x, *bounds, 3), fake_quantize_by_step(x, bounds[1], -4, 3)
    plain = fake_quantize(x, *bounds, 3), fake_quantize_by_step(x, bounds[1], -4, 3)
    torch.testing.assert_close(fused, plain, rtol=0, atol=0, equal_nan=True)


def test_bounds_that_met_are_kept_apart():
    bounds = [torch.tensor(0.3), torch.tensor(0.3)]
    compare(lambda *a: fake_quantize(*a, 4), torch.full((7,), 0.3), bounds, torch.ones(7))


def test_what_the_loops_do_not_know_is_left_to_torch():
    x, bound = torch.rand(2, 3, 4, 4), torch.tensor(1.0)
    assert rows_of(x, bound, None) is None  # not switched on
    with fused_quantizers():
        assert rows_of(x, bound, None) is not None
        assert rows_of(x, torch.ones(3), 1) is None
        assert rows_of(x.double(), bound.double(), None) is None
        assert rows_of(x[:0], bound, None) is None
        with fused_quantizers(False):
            assert rows_of(x, bound, None) is None
    assert rows_of(x, bound, None) is None
