"""ODM's weight quantizer: its range follows the weight."""

import numpy as np
import pytest
import torch

from basicsr.quant.calibration import Bounds
from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.quantizers.odm_weight_quantizer import ODMWeightQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


def build(bits=2, granularity="per_tensor", channels=None, **options):
    spec = QuantSpec(bits, True, granularity, channel_axis=None if channels is None else 0)
    quantizer = ODMWeightQuantizer(spec, channels, **options)
    quantizer.load_calibration(
        Bounds(torch.full(quantizer.bounds_shape, -0.5), torch.full(quantizer.bounds_shape, 0.25))
    )
    return quantizer


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.5, 100.0])
@pytest.mark.parametrize("shape", [(7, 5, 3, 3), (3,), (1,)])
def test_the_range_is_gamma_times_the_percentile_of_the_present_weight(percentile, shape):
    weight = torch.randn(shape)
    quantizer = build(percentile=percentile)
    with torch.no_grad():
        quantizer.gamma.fill_(1.5)
    for factor in (1.0, 3.0):
        expected = 1.5 * np.percentile(np.abs((factor * weight).numpy()), percentile)
        lower, upper = quantizer.bounds(factor * weight)
        assert float(upper.detach()) == pytest.approx(expected, rel=1e-5) and torch.equal(lower, -upper)
    u = quantizer.bounds(weight)[1].detach()
    assert torch.equal(quantizer(weight), fake_quantize(weight, -u, u, 2))


def test_a_percentile_for_each_channel():
    weight = torch.randn(4, 60)
    quantizer = build(granularity="per_channel", channels=4, percentile=90.0)
    expected = np.percentile(np.abs(weight.numpy()), 90.0, axis=1)
    np.testing.assert_allclose(quantizer.bounds(weight)[1].detach().numpy(), expected, rtol=1e-5)
    assert quantizer.gamma.shape == (4,)


def test_gradients_by_hand():
    # f(W) is 4; the grid of 2 bits is -4, -4/3, 4/3, 4; 1 and -2 lie inside with codes 2 and 1
    weight = torch.tensor([1.0, -2.0, 4.0], requires_grad=True)
    quantizer = build(percentile=100.0)
    output = quantizer(weight)
    torch.testing.assert_close(output, torch.tensor([4 / 3, -4 / 3, 4.0]))
    (output * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert weight.grad.tolist() == [1.0, 10.0, 100.0]  # straight through, 4 is on the bound
    # d output / du of code c is (2 c - 3) / 3 less what the position has: (q - w) / u inside, 1 at the bound
    of_bound = 1.0 * (4 / 3 - 1) / 4 + 10.0 * (-4 / 3 + 2) / 4 + 100.0
    assert float(quantizer.gamma.grad) == pytest.approx(4 * of_bound)


def test_the_percentile_passes_gradients_where_asked():
    values = [1.0, -2.0, 4.0]
    gradients = []
    for asked in (False, True):
        weight = torch.tensor(values, requires_grad=True)
        quantizer = build(percentile=100.0, percentile_gradient=asked)
        quantizer(weight).sum().backward()
        gradients.append(weight.grad)
    difference = gradients[1] - gradients[0]
    of_bound = (4 / 3 - 1) / 4 + (-4 / 3 + 2) / 4 + 1
    torch.testing.assert_close(difference, torch.tensor([0.0, 0.0, of_bound]))  # gamma is 1


def test_training_and_evaluation_agree_and_calibration_data_do_not_matter():
    weight = torch.randn(50)
    quantizer = build()
    trained = quantizer(weight)
    fresh = ODMWeightQuantizer(QuantSpec(2, True)).eval()
    fresh.load_state_dict(quantizer.state_dict())
    assert torch.equal(fresh(weight), trained)
    assert set(fresh.state_dict()) == {"gamma", "bits", "calibrated"}


def test_weights_of_zeros_and_a_gamma_below_zero_give_no_nan():
    quantizer = build()
    assert quantizer(torch.zeros(5)).tolist() == [0.0] * 5
    with torch.no_grad():
        quantizer.gamma.fill_(-0.5)
    weight = torch.randn(20, requires_grad=True)
    quantizer(weight).square().sum().backward()
    assert torch.isfinite(weight.grad).all() and torch.isfinite(quantizer.gamma.grad)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.5])
def test_percentiles_out_of_range(percentile):
    with pytest.raises(QuantizationError, match=f"is {percentile}"):
        ODMWeightQuantizer(QuantSpec(2, True), percentile=percentile)
