"""DDTB: two bounds, the gate, and which quantizers get one."""

import numpy as np
import pytest
import torch

from basicsr.quant.calibration import VaryingBounds
from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.ops.zero_point import with_integer_zero_point
from basicsr.quant.quantizers.base import Channels
from basicsr.quant.quantizers.ddtb_gate import RangeGate
from basicsr.quant.quantizers.ddtb_quantizer import DDTBQuantizer
from basicsr.quant.quantizers.ddtb_weight_quantizer import DDTBWeightQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

X = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(3))
CHANNELS = Channels(4, 1)


def calibrated(channels=CHANNELS, variance=0.0, bits=3, **options):
    quantizer = DDTBQuantizer(QuantSpec(bits), None, channels, **options)
    quantizer.load_calibration(VaryingBounds(torch.tensor(-0.9), torch.tensor(1.4), range_variance=variance))
    return quantizer


def with_random_gate(**options):
    quantizer = calibrated(**options)
    torch.nn.init.normal_(quantizer.gate.excite.weight)
    return quantizer.eval()


def test_before_training_a_gate_changes_nothing():
    assert torch.equal(calibrated().eval()(X), calibrated(channels=None)(X))
    assert torch.equal(calibrated()(X), calibrated(channels=None)(X))


@pytest.mark.parametrize("integer_zero_point", [True, False])
def test_a_gate_scales_the_bounds_of_each_sample(integer_zero_point):
    quantizer = with_random_gate(integer_zero_point=integer_zero_point)
    factors = quantizer.gate(X.mean(dim=(2, 3)))
    assert factors.shape == (3, 2) and factors.unique().numel() > 2
    expected = []
    for sample, (upper, lower) in zip(X, factors, strict=True):
        bounds = (-0.9 * lower, 1.4 * upper)
        if integer_zero_point:
            bounds = with_integer_zero_point(*bounds, 3)
        expected.append(fake_quantize(sample, *bounds, 3))
    torch.testing.assert_close(quantizer(X), torch.stack(expected))


def test_in_evaluation_samples_do_not_see_each_other():
    quantizer = with_random_gate()
    torch.testing.assert_close(quantizer(X)[1:2], quantizer(X[1:2]))


def test_a_gate_takes_the_means_of_tokens():
    tokens = X.flatten(2).transpose(1, 2)  # N, L, C
    maps, tokenwise = with_random_gate(), calibrated(channels=Channels(4, -1)).eval()
    tokenwise.load_state_dict(maps.state_dict())
    torch.testing.assert_close(tokenwise(tokens), maps(X).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("gate_bits", [2, 8, None])
def test_all_of_the_gate_learns_and_the_bounds_learn_through_it(gate_bits):
    quantizer = calibrated(gate_bits=gate_bits)
    torch.nn.init.normal_(quantizer.gate.excite.weight)
    x = (X * 2).requires_grad_()
    quantizer(x).square().sum().backward()
    for name, parameter in quantizer.named_parameters():
        assert bool(parameter.grad.any()), name


def test_without_quantization_a_gate_is_its_formula():
    gate = RangeGate(4, 8, None).eval()
    torch.nn.init.normal_(gate.excite.weight)
    torch.nn.init.uniform_(gate.norm.running_mean)
    means = torch.randn(5, 4)
    hidden = (means @ gate.squeeze.weight.T - gate.norm.running_mean) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(gate(means), 2 / (1 + torch.exp(-hidden.relu() @ gate.excite.weight.T)))


def test_a_gate_has_few_values_inside():
    gate = RangeGate(64, 32, 2)
    assert gate._quantized_weight(gate.squeeze.weight).unique().numel() == 3
    rows = gate._quantized_input(torch.randn(5, 64))
    assert max(row.unique().numel() for row in rows) == 4


def test_the_quantizers_whose_range_varies_most_keep_their_gates():
    variances = [0.1, 5.0, 0.2, 3.0, 9.0, 0.3, 0.4]
    quantizers = [calibrated(variance=v, dynamic_ratio=0.45) for v in variances]
    quantizers[4] = calibrated(channels=None, variance=9.0, dynamic_ratio=0.45)  # nothing to take the means of
    DDTBQuantizer.settle(quantizers)
    assert [quantizer.dynamic for quantizer in quantizers] == [False, True, False, True, False, False, True]
    assert [bool(quantizer.gated) for quantizer in quantizers] == [q.dynamic for q in quantizers]
    assert not any("gate." in key for key in quantizers[0].state_dict())


@pytest.mark.parametrize(("ratio", "number"), [(0.0, 0), (0.3, 3), (0.5, 5), (0.1, 1), (1.0, 10), (0.19, 1)])
def test_the_share_is_rounded_down(ratio, number):
    quantizers = [calibrated(variance=v, dynamic_ratio=ratio) for v in torch.rand(10).tolist()]
    DDTBQuantizer.settle(quantizers)
    assert sum(quantizer.dynamic for quantizer in quantizers) == number


def test_a_state_dict_restores_which_quantizers_have_gates():
    with_gate, without = with_random_gate(), calibrated()
    without.set_gated(False)
    for source in (with_gate, without):
        for target in (DDTBQuantizer(QuantSpec(3), None, CHANNELS), calibrated(channels=CHANNELS)):
            if source is with_gate:
                target.set_gated(False)
            assert target.load_state_dict(source.state_dict()) == ([], [])
            assert target.dynamic == source.dynamic
            assert torch.equal(target.eval()(X), source.eval()(X))


def test_calibrating_again_gives_a_gate_back():
    quantizer = calibrated(variance=2.0, dynamic_ratio=1.0)
    quantizer.set_gated(False)
    DDTBQuantizer.settle([quantizer])
    assert quantizer.dynamic


def test_a_gate_cannot_be_trained_with_a_single_sample():
    with pytest.raises(QuantizationError, match="raise 'train:batch_size'"):
        calibrated()(X[:1])
    calibrated().eval()(X[:1])


@pytest.mark.parametrize("options", [{"dynamic_ratio": 1.5}, {"gate_channels": 0}, {"gate_bits": 1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(QuantizationError, match="dynamic_ratio|gate_channels|bits is 1"):
        calibrated(**options)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (0.0, float("nan")), (-float("inf"), 0.0)])
def test_bounds_that_cannot_be_used_are_refused(bounds):
    quantizer = DDTBQuantizer(QuantSpec(3), None, None)
    with pytest.raises(QuantizationError, match="cannot be used"):
        quantizer.load_calibration(VaryingBounds(*map(torch.tensor, bounds), range_variance=0.0))


def weight_quantizer(spec, num_channels=None, **options):
    quantizer = DDTBWeightQuantizer(spec, num_channels, **options)
    quantizer.mark_calibrated()
    return quantizer


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 99.0), (0.0, 100.0), (30.0, 60.0), (0.1, 99.9)])
@pytest.mark.parametrize("elements", [7, 500])
def test_the_bounds_of_weights_are_percentiles(lower, upper, elements):
    weight = torch.randn(3, elements)
    spec = QuantSpec(4, granularity="per_channel", channel_axis=0)
    quantizer = weight_quantizer(spec, 3, lower=lower, upper=upper, integer_zero_point=False)
    expected = np.percentile(weight.double().numpy(), [lower, upper], axis=1)
    for bound, reference in zip(quantizer.bounds(weight), expected, strict=True):
        torch.testing.assert_close(bound.double(), torch.from_numpy(reference), rtol=1e-5, atol=1e-6)


def test_clipped_weights_get_no_gradient():
    weight = torch.randn(1000, requires_grad=True)
    quantizer = weight_quantizer(QuantSpec(4))
    output = quantizer(weight)
    output.sum().backward()
    lower, upper = quantizer.bounds(weight.detach())
    assert torch.equal(weight.grad, ((weight >= lower) & (weight <= upper)).float())
    assert 970 < int(weight.grad.sum()) < 1000
    assert output.unique().numel() == 16 and output.abs().min() < 1e-6


def test_percentiles_in_the_wrong_order_are_refused():
    with pytest.raises(QuantizationError, match="lower 99.0 and upper 1.0"):
        weight_quantizer(QuantSpec(4), lower=99.0, upper=1.0)


def test_a_pulled_gate_does_not_act_and_is_pulled_to_one():
    """The mean square of what the sigmoid is taken of joins the losses, for as many steps of training as asked for."""
    quantizer = calibrated(pull_steps=2).train()
    assert quantizer.gate.excite.weight.any()  # it starts at random
    static = calibrated(channels=None)(X)
    for left in (2, 1):
        assert int(quantizer.pulls_left) == left and quantizer.is_pulled
        assert torch.equal(quantizer(X), static) and torch.equal(quantizer.eval()(X), static)
        quantizer.train()(X)
        penalty = quantizer.take_penalty()
        logits = quantizer.gate.logits(X.mean(dim=(2, 3)))
        torch.testing.assert_close(penalty, (logits[:, 0] ** 2 + logits[:, 1] ** 2).mean() / 2)
        assert quantizer.take_penalty() is None
        penalty.backward()
        assert bool(quantizer.gate.excite.weight.grad.any()) and quantizer.upper_bound.grad is None
        quantizer.step_taken()
    assert not quantizer.is_pulled and not torch.equal(quantizer.eval()(X), static)
    quantizer.train()(X)
    quantizer.step_taken()
    assert quantizer.take_penalty() is None and int(quantizer.pulls_left) == 0


def test_a_state_dict_knows_how_long_a_gate_is_still_pulled():
    source, target = calibrated(pull_steps=3).train(), calibrated(pull_steps=3)
    source(X)
    source.step_taken()
    assert target.load_state_dict(source.state_dict()) == ([], [])
    assert int(target.pulls_left) == 2 and target.is_pulled
    target.load_calibration(VaryingBounds(torch.tensor(-0.9), torch.tensor(1.4), range_variance=1.0))
    assert int(target.pulls_left) == 3
    assert "pulls_left" not in calibrated().state_dict()
