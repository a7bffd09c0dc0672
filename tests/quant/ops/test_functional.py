"""The fake quantizer: parity with the public implementation, its properties, its gradients and what it keeps in memory."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from basicsr.quant.ops.functional import MINIMAL_WIDTH, dequantize, fake_quantize, quantize
from tests.quant.reference import frozen_fake_quantize, plain_fake_quantize, rounding_residual

CASES = [f"c{i:02d}" for i in range(16)]

bit_widths = st.integers(2, 8)
seeds = st.integers(0, 2**31)
windows = st.one_of(st.just(1.0), st.floats(0.05, 1.0))
few = settings(max_examples=30, deadline=None)


def make_case(seed, bits, margin=1e-3):
    """Values on both sides of random bounds, in float64, none nearer than `margin` steps to a bound or a tie."""
    generator = torch.Generator().manual_seed(seed)
    lower, width = (torch.rand(2, generator=generator, dtype=torch.float64) * 4).unbind()
    lower, upper = lower - 3, lower - 3 + width + 0.05
    step = (upper - lower) / (2**bits - 1)
    position = torch.rand(200, generator=generator, dtype=torch.float64) * (2**bits + 3) - 2.5
    position = position[(position - position.floor() - 0.5).abs() > margin]
    position = position[(position.abs() > margin) & ((position - (2**bits - 1)).abs() > margin)]
    return lower + position * step, lower, upper


def gradients(function, x, lower, upper, grad):
    leaves = [t.clone().requires_grad_() for t in (x, lower, upper)]
    return torch.autograd.grad(function(*leaves), leaves, grad)


@pytest.mark.parametrize("case", CASES)
def test_parity_with_the_public_implementation(reference, case):
    data = np.load(reference / "fakequant.npz")
    x, lower, upper, grad = (torch.from_numpy(np.asarray(data[f"{case}_{key}"])) for key in ("x", "lb", "ub", "g"))
    bits = int(data["bits"][CASES.index(case)])
    output = fake_quantize(x, lower, upper, bits)
    grad_x, grad_lower, grad_upper = gradients(lambda *t: fake_quantize(*t, bits), x, lower, upper, grad)

    np.testing.assert_allclose(output, data[f"{case}_y"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(quantize(x, lower, upper, bits).numpy(), data[f"{case}_codes"])
    np.testing.assert_allclose(grad_x, data[f"{case}_gx"], atol=0, rtol=1e-6)  # zeros are exact
    tolerance = 2e-6 * float(grad.abs().sum())
    for ours, key in ((grad_lower, "glb"), (grad_upper, "gub")):
        np.testing.assert_allclose(ours, data[f"{case}_{key}"], atol=tolerance, rtol=0)
        np.testing.assert_allclose(ours, data[f"{case}_{key}64"], atol=tolerance, rtol=0)


def test_elements_on_a_bound_give_their_gradient_to_the_input_and_to_the_bound(reference):
    data = np.load(reference / "fakequant.npz")
    x, grad = torch.from_numpy(data["edge_x"]), torch.from_numpy(data["edge_g"])
    lower, upper = torch.tensor(-1.0), torch.tensor(1.0)
    np.testing.assert_allclose(fake_quantize(x, lower, upper, 2), data["edge_y"], atol=1e-6, rtol=0)
    grads = gradients(lambda *t: fake_quantize(*t, 2), x, lower, upper, grad)
    for ours, key in zip(grads, ("edge_gx", "edge_glb", "edge_gub"), strict=True):
        np.testing.assert_allclose(ours, data[key], atol=1e-6, rtol=1e-6)


def test_one_element_on_each_bound():
    grads = gradients(
        lambda *t: fake_quantize(*t, 2), torch.tensor([-1.0, 1.0]), torch.tensor(-1.0), torch.tensor(1.0), torch.ones(2)
    )
    assert [g.tolist() for g in grads] == [[1.0, 1.0], 1.0, 1.0]


@few
@given(seeds, bit_widths)
def test_output_is_idempotent_monotone_close_and_has_few_values(seed, bits):
    x, lower, upper = (t.float() for t in make_case(seed, bits))
    output = fake_quantize(x, lower, upper, bits)
    assert torch.equal(fake_quantize(output, lower, upper, bits), output)
    assert bool((output[x.argsort()].diff() >= 0).all())
    assert output.unique().numel() <= 2**bits
    step = (upper - lower) / (2**bits - 1)
    inside = (x >= lower) & (x <= upper)
    assert float((output - x)[inside].abs().max()) <= float(step) * 0.5 + 1e-6
    assert torch.equal(output[x < lower], lower.expand(int((x < lower).sum())))
    torch.testing.assert_close(output[x > upper], upper.expand(int((x > upper).sum())), atol=1e-6, rtol=1e-6)


@few
@given(seeds, bit_widths)
def test_codes_and_values_are_two_ways_to_say_the_same(seed, bits):
    x, lower, upper = (t.float() for t in make_case(seed, bits))
    codes = quantize(x, lower, upper, bits)
    assert codes.dtype == torch.uint8
    assert int(codes.max()) <= 2**bits - 1
    assert torch.equal(dequantize(codes, lower, upper, bits), fake_quantize(x, lower, upper, bits))


@few
@given(seeds, bit_widths)
def test_gradients_are_those_of_the_plain_composition(seed, bits):
    x, lower, upper = make_case(seed, bits)
    grad = torch.randn_like(x)
    ours = gradients(lambda *t: fake_quantize(*t, bits), x, lower, upper, grad)
    plain = gradients(lambda x, lo, up: plain_fake_quantize(x, lo, up, bits), x, lower, upper, grad)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    inside = (x >= lower) & (x <= upper)
    assert torch.equal(ours[0], torch.where(inside, grad, 0))


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_gradients_are_the_finite_differences_of_the_frozen_quantizer(bits):
    x, lower, upper = make_case(7, bits, margin=1e-2)
    residual = rounding_residual(x, lower, upper, bits)

    class Frozen(torch.autograd.Function):
        """Forward: the smooth function of the same value. Backward: the gradients under test."""

        @staticmethod
        def forward(ctx, x, lower, upper):
            ctx.save_for_backward(x, lower, upper)
            return frozen_fake_quantize(x, lower, upper, bits, residual)

        @staticmethod
        def backward(ctx, grad):
            with torch.enable_grad():
                x, lower, upper = ctx.saved_tensors
                return gradients(lambda x, lo, up: fake_quantize(x, lo, up, bits), x, lower, upper, grad)

    torch.testing.assert_close(
        frozen_fake_quantize(x, lower, upper, bits, residual), fake_quantize(x, lower, upper, bits), atol=1e-12, rtol=0
    )
    inputs = [t.clone().requires_grad_() for t in (x, lower, upper)]
    assert torch.autograd.gradcheck(Frozen.apply, inputs, eps=1e-6, atol=1e-6)


@few
@given(seeds, bit_widths, st.floats(-3.0, -0.05), st.floats(0.05, 3.0), windows)
def test_gradients_of_zeros_are_exact(seed, bits, lower, upper, window):
    position = -lower / (upper - lower) * (2**bits - 1)
    assume(abs(position % 1 - 0.5) > 1e-3)  # where the code of 0 does not change
    generator = torch.Generator().manual_seed(seed)
    # zeros and values beyond the upper bound only, so that no code changes with the bounds
    x = torch.where(torch.rand(40, generator=generator) < 0.7, 0.0, 5.0).double()
    weight = torch.randn(40, generator=generator, dtype=torch.float64)

    def loss(*bounds):
        return (fake_quantize(x, *bounds, bits, exact_zeros=True, threshold_window=window) * weight).sum()

    bounds = [torch.tensor(bound, dtype=torch.float64, requires_grad=True) for bound in (lower, upper)]
    assert torch.autograd.gradcheck(loss, bounds, eps=1e-7, atol=1e-6)


@few
@given(seeds, bit_widths, st.floats(0.05, 0.9))
def test_with_a_window_gradients_of_elements_far_from_thresholds_are_exact(seed, bits, window):
    x, lower, upper = make_case(seed, bits)
    position = (x - lower) / (upper - lower) * (2**bits - 1)
    inside = (position > 0) & (position < 2**bits - 1)
    crossing = inside & ((position - position.floor() - 0.5).abs() <= window / 2 + 1e-3)
    x = x[~crossing]
    weight = torch.randn(len(x), dtype=torch.float64)

    def loss(*bounds):
        return (fake_quantize(x, *bounds, bits, threshold_window=window) * weight).sum()

    bounds = [lower.requires_grad_(), upper.requires_grad_()]
    assert torch.autograd.gradcheck(loss, bounds, eps=1e-8, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4])
def test_with_a_window_gradients_of_values_that_crowd_are_nearer_to_those_of_the_loss(bits):
    step = 1 / (2**bits - 1)
    lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in (-0.2 * step, 1 - 0.2 * step))
    share = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    x = -0.1 * step * torch.log1p(-share)  # exponentially distributed, a tenth of a step on average

    def loss(lower, upper, window=1.0):
        return ((1 + x) * fake_quantize(x, lower, upper, bits, threshold_window=window)).mean() / step

    little = 0.02 * step
    expected = [
        (loss(lower + little * one, upper + little * other) - loss(lower - little * one, upper - little * other))
        / (2 * little)
        for one, other in ((1, 0), (0, 1))
    ]

    def error(window):
        bounds = (lower.clone().requires_grad_(), upper.clone().requires_grad_())
        found = torch.autograd.grad(loss(*bounds, window), bounds)
        return max(abs(float(a - b)) for a, b in zip(found, expected, strict=True)) * step

    assert error(0.05) < 0.01
    assert error(0.1) < 0.03
    assert error(1.0) > 0.4  # straight-through: nearly all of the gradient is missing


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (-1.0, 0.0), (0.5, 1.0), (-1.0, -0.5)])
def test_zeros_on_or_outside_the_bounds_have_exact_gradients_anyway(lower, upper):
    x = torch.cat([torch.zeros(30), torch.randn(30, generator=torch.Generator().manual_seed(2))]).double()
    arguments = (x, torch.tensor(lower).double(), torch.tensor(upper).double(), torch.randn_like(x))
    plain = gradients(lambda *t: fake_quantize(*t, 3), *arguments)
    exact = gradients(lambda *t: fake_quantize(*t, 3, exact_zeros=True), *arguments)
    assert all(torch.equal(a, b) for a, b in zip(plain, exact, strict=True))


def test_exact_zeros_change_no_value_and_no_gradient_of_other_elements():
    x, lower, upper = make_case(11, 3)
    grad = torch.randn_like(x)
    assert not bool((x == 0).any())
    assert torch.equal(fake_quantize(x, lower, upper, 3), fake_quantize(x, lower, upper, 3, exact_zeros=True))
    plain = gradients(lambda *t: fake_quantize(*t, 3), x, lower, upper, grad)
    exact = gradients(lambda *t: fake_quantize(*t, 3, exact_zeros=True), x, lower, upper, grad)
    assert all(torch.equal(a, b) for a, b in zip(plain, exact, strict=True))


@pytest.mark.parametrize("window", [1.0, 0.25])
@pytest.mark.parametrize("exact_zeros", [False, True])
@pytest.mark.parametrize("frozen", [(True, False), (False, True)])
def test_ways_to_estimate_gradients_per_channel_and_with_one_bound_that_learns(exact_zeros, frozen, window):
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(3)).clamp_min(0)
    lower, upper = torch.tensor([-0.5, -0.1, 0.0]), torch.tensor([1.0, 2.0, 0.7])
    grad = torch.randn_like(x)

    def gradient(channels, axis):
        bounds = [
            bound[channels].clone().requires_grad_(not stays)
            for bound, stays in zip((lower, upper), frozen, strict=True)
        ]
        options = {"exact_zeros": exact_zeros, "threshold_window": window}
        fake_quantize(x[:, channels], *bounds, 4, axis, **options).backward(grad[:, channels])
        return next(bound.grad for bound in bounds if bound.requires_grad)

    torch.testing.assert_close(gradient(slice(None), 1), torch.stack([gradient(c, None) for c in range(3)]))


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_gradcheck_where_the_quantizer_itself_is_differentiable(side):
    x = side * torch.rand(20, dtype=torch.float64) + 2 * side  # all beyond one bound
    inputs = [t.requires_grad_() for t in (x, torch.tensor(-1.0).double(), torch.tensor(1.5).double())]
    assert torch.autograd.gradcheck(lambda *t: fake_quantize(*t, 3), inputs)


@pytest.mark.parametrize(("shape", "axis"), [((3, 5, 4, 2), 0), ((3, 5, 4, 2), 1), ((6, 3), -1), ((4,), 0)])
def test_per_channel_is_per_tensor_on_each_channel(shape, axis):
    x = torch.randn(shape, dtype=torch.float64)
    channels = shape[axis]
    lower = -torch.rand(channels, dtype=torch.float64) - 0.2
    upper = torch.rand(channels, dtype=torch.float64) + 0.1
    grad = torch.randn(shape, dtype=torch.float64)
    output = fake_quantize(x, lower, upper, 3, axis)
    codes = quantize(x, lower, upper, 3, axis)
    values = dequantize(codes, lower, upper, 3, axis)
    grad_x, grad_lower, grad_upper = gradients(lambda *t: fake_quantize(*t, 3, axis), x, lower, upper, grad)
    for c in range(channels):
        part = (x.select(axis, c), lower[c], upper[c])
        torch.testing.assert_close(output.select(axis, c), fake_quantize(*part, 3))
        torch.testing.assert_close(values.select(axis, c), fake_quantize(*part, 3))
        assert torch.equal(codes.select(axis, c), quantize(*part, 3))
        expected = gradients(lambda *t: fake_quantize(*t, 3), *part, grad.select(axis, c))
        torch.testing.assert_close((grad_x.select(axis, c), grad_lower[c], grad_upper[c]), expected)


@pytest.mark.parametrize("frozen", ["x", "lower", "upper", "bounds"])
def test_only_the_gradients_that_are_needed_are_computed(frozen):
    x, lower, upper = torch.randn(50), torch.tensor(-0.7), torch.tensor(0.9)
    full = dict(
        zip(("x", "lower", "upper"), gradients(lambda *t: fake_quantize(*t, 4), x, lower, upper, x), strict=True)
    )
    leaves = {"x": x.clone(), "lower": lower.clone(), "upper": upper.clone()}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name != frozen and not (frozen == "bounds" and name != "x"))
    fake_quantize(leaves["x"], leaves["lower"], leaves["upper"], 4).backward(x)
    for name, leaf in leaves.items():
        assert (leaf.grad is None) == (not leaf.requires_grad)
        if leaf.requires_grad:
            torch.testing.assert_close(leaf.grad, full[name])


@pytest.mark.parametrize("channels", [None, 5])
def test_backward_keeps_nothing_but_the_arguments(channels):
    shape = () if channels is None else (channels,)
    x = torch.randn(64, 5, requires_grad=True)
    lower, upper = (torch.full(shape, bound, requires_grad=True) for bound in (-1.0, 1.0))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        fake_quantize(x, lower, upper, 4, None if channels is None else 1)
    assert sorted(kept) == sorted(t.data_ptr() for t in (x, lower, upper))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_quantized_as_its_float32_value(dtype):
    x = torch.randn(500).to(dtype).requires_grad_()
    lower, upper = torch.tensor(-1.234, requires_grad=True), torch.tensor(1.789, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = fake_quantize(x, lower, upper, 8)
    assert output.dtype == dtype
    assert torch.equal(output, fake_quantize(x.detach().float(), lower, upper, 8).to(dtype))
    assert torch.equal(quantize(x, lower, upper, 8), quantize(x.detach().float(), lower, upper, 8))
    output.backward(torch.ones_like(output))
    assert x.grad.dtype == dtype
    expected = gradients(lambda *t: fake_quantize(*t, 8), x.detach().float(), lower, upper, torch.ones(500))
    torch.testing.assert_close(
        (x.grad.float(), lower.grad, upper.grad), expected, atol=1e-4, rtol=1e-4, check_dtype=False
    )


@pytest.mark.parametrize(("lower", "upper"), [(0.5, 0.5), (0.6, 0.5), (0.0, 0.0), (-0.5, -1e6), (0.5, 0.5 + 1e-13)])
@pytest.mark.parametrize("bits", [2, 8])
def test_bounds_that_meet_or_cross_give_finite_values_and_a_way_out(lower, upper, bits):
    x = torch.linspace(-3, 3, 61)
    lower, upper = torch.tensor(lower, requires_grad=True), torch.tensor(upper, requires_grad=True)
    leaf = x.clone().requires_grad_()
    output = fake_quantize(leaf, lower, upper, bits)
    assert float((output - lower).detach().abs().max()) <= 2 * MINIMAL_WIDTH
    (output - x).square().sum().backward()  # the bounds can reduce this by moving apart
    for grad in (leaf.grad, lower.grad, upper.grad):
        assert bool(torch.isfinite(grad).all())
    assert float(lower.grad) > 0 > float(upper.grad)


def test_infinite_values_are_clipped_and_nan_is_not_hidden():
    output = fake_quantize(
        torch.tensor([float("inf"), -float("inf"), float("nan")]), torch.tensor(-1.0), torch.tensor(1.0), 4
    )
    assert output[:2].tolist() == [1.0, -1.0]
    assert bool(output[2].isnan())


def test_strided_input_gives_the_same_as_contiguous():
    x = torch.randn(4, 6, 5)[:, ::2].transpose(0, 2)
    args = torch.tensor(-1.0), torch.tensor(1.0), 3
    assert torch.equal(fake_quantize(x, *args), fake_quantize(x.contiguous(), *args))
