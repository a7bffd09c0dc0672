"""Learned rounding: where it starts, what it learns, and its state dict."""

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.quant.ops.functional import quantize
from basicsr.quant.quantizers.adaround_quantizer import (
    AdaRoundQuantizer,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    soft_rounding,
)
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

SPECS = [
    (QuantSpec(2), None),
    (QuantSpec(4, symmetric=True), None),
    (QuantSpec(3, granularity="per_channel", channel_axis=0), 6),
]


@pytest.fixture
def weight():
    return torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=SPECS, ids=lambda p: f"{p[0].bits}{p[0].symmetric}{p[0].granularity}")
def quantizer(request):
    spec, num_channels = request.param
    quantizer = AdaRoundQuantizer(spec, num_channels)
    quantizer.set_bounds(torch.full(quantizer.bounds_shape, -1.3), torch.full(quantizer.bounds_shape, 1.7))
    quantizer.name = "body.0.conv1.weight_quantizer"
    return quantizer


def learn(quantizer, weight, seed=1):
    """Give the quantizer a rounding that is not the nearest."""
    quantizer.start_rounding(weight)
    with torch.no_grad():
        quantizer.rounding.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 3)


@given(st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_rectified_sigmoid_reaches_both_ends_and_has_an_inverse(h):
    h = torch.tensor(h)
    torch.testing.assert_close(rectified_sigmoid(inverse_rectified_sigmoid(h)), h, atol=1e-6, rtol=0)
    assert rectified_sigmoid(torch.tensor([-9.0, 0.0, 9.0])).tolist() == [0.0, 0.5, 1.0]


def test_it_starts_at_the_clipped_weight_and_rounds_to_the_nearest(quantizer, weight):
    nearest, codes = quantizer(weight).detach(), quantizer.codes(weight)
    quantizer.start_rounding(weight)
    lower, upper = (bound.detach().reshape(-1, *[1] * 3) for bound in quantizer.bounds())
    with soft_rounding(quantizer):
        torch.testing.assert_close(quantizer(weight), weight.clamp(lower, upper), atol=1e-5, rtol=0)
    torch.testing.assert_close(quantizer(weight), nearest, atol=1e-6, rtol=0)
    assert torch.equal(quantizer.codes(weight), codes)


def test_only_soft_rounding_gives_gradients_to_the_rounding(quantizer, weight):
    quantizer.start_rounding(weight)
    factor = torch.randn(weight.shape)
    with soft_rounding(quantizer):
        (quantizer(weight) * factor).sum().backward()
    v = quantizer.rounding.detach().double().requires_grad_()
    lower, upper = (bound.detach().double().reshape(-1, *[1] * 3) for bound in quantizer.bounds())
    step = (upper - lower) / quantizer.spec.max_code
    codes = ((weight - lower) / step).floor() + rectified_sigmoid(v)
    ((codes.clamp(0, quantizer.spec.max_code) * step + lower) * factor).sum().backward()
    torch.testing.assert_close(quantizer.rounding.grad.double(), v.grad, atol=1e-5, rtol=1e-4)
    quantizer.rounding.grad = None
    quantizer(weight).sum().backward()
    assert quantizer.rounding.grad is None


def test_learned_codes_are_the_two_neighbours_and_few(quantizer, weight):
    learn(quantizer, weight)
    lower, upper = (bound.detach().reshape(-1, *[1] * 3) for bound in quantizer.bounds())
    position = ((weight - lower) / (upper - lower) * quantizer.spec.max_code).clamp(0, quantizer.spec.max_code)
    codes, values = quantizer.codes(weight), quantizer(weight).detach()
    assert codes.dtype == torch.uint8 and int(codes.max()) <= quantizer.spec.max_code
    assert bool(((codes - position).abs() < 1 + 1e-4).all())
    lower, upper = quantizer.bounds()
    assert not torch.equal(codes, quantize(weight, lower, upper, quantizer.spec.bits, quantizer.spec.channel_axis))
    for row in values.flatten(1) if quantizer.bounds_shape else [values]:
        assert row.unique().numel() <= quantizer.spec.num_levels
    quantizer.finish_rounding()
    assert quantizer.rounding.dtype == torch.bool and not quantizer.is_learned
    assert torch.equal(quantizer(weight), values) and torch.equal(quantizer.codes(weight), codes)
    with soft_rounding(quantizer):
        assert torch.equal(quantizer(weight), values)


def test_the_gradients_of_weight_and_bounds_are_those_of_affine(weight):
    affine, adaround = AffineQuantizer(QuantSpec(4)), AdaRoundQuantizer(QuantSpec(4))
    factor = torch.randn(weight.shape)
    gradients = []
    for quantizer in (affine, adaround):
        quantizer.set_bounds(-1.3, 1.7)
        if quantizer is adaround:
            quantizer.start_rounding(weight)
        x = weight.clone().requires_grad_()
        (quantizer(x) * factor).sum().backward()
        gradients.append((x.grad, quantizer.lower_bound.grad, quantizer.upper_bound.grad))
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_the_regularizer_vanishes_where_all_is_decided(quantizer, weight):
    learn(quantizer, weight)
    v = quantizer.rounding.detach()
    expected = (1 - (2 * rectified_sigmoid(v) - 1).abs() ** 3).sum()
    torch.testing.assert_close(quantizer.rounding_regularizer(3.0).detach(), expected)
    with torch.no_grad():
        quantizer.rounding.copy_(v.sign() * 9)
    assert quantizer.rounding_regularizer(3.0).item() == 0


@pytest.mark.parametrize("finished", [False, True])
def test_a_state_dict_brings_the_rounding_along(quantizer, weight, finished):
    learn(quantizer, weight)
    if finished:
        quantizer.finish_rounding()
    file = io.BytesIO()
    torch.save(torch.nn.ModuleDict({"w": quantizer}).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    fresh = AdaRoundQuantizer(quantizer.spec, weight.shape[0] if quantizer.bounds_shape else None)
    without = copy.deepcopy(fresh.state_dict())
    assert torch.nn.ModuleDict({"w": fresh}).load_state_dict(state) == ([], [])
    assert torch.equal(fresh(weight), quantizer(weight)) and fresh.is_learned != finished
    fresh.load_state_dict(without | {"calibrated": torch.tensor(True)})
    assert fresh.rounding is None


def test_a_rounding_that_does_not_fit_is_refused(quantizer, weight):
    learn(quantizer, weight)
    with pytest.raises(
        QuantizationError, match=r"'body\.0\.conv1\.weight_quantizer' has learned .* \(6, 5, 3, 3\).*\(5, 5, 3, 3\)"
    ):
        quantizer(weight[:5])
    for wrong in (torch.zeros(6, dtype=torch.int64), torch.tensor([float("nan")])):
        with pytest.raises(QuantizationError, match="'rounding'.*no rounding of weights"):
            quantizer.load_state_dict(quantizer.state_dict() | {"rounding": wrong})


def test_learning_needs_bounds(weight):
    with pytest.raises(QuantizationError, match="no bounds yet"):
        AdaRoundQuantizer(QuantSpec(4)).start_rounding(weight)
