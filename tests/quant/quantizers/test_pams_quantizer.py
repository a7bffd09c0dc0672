"""PAMS: the quantizer of activations and that of weights."""

import pytest
import torch

from basicsr.quant.calibration import Bounds
from basicsr.quant.quantizers.pams_quantizer import PAMSQuantizer
from basicsr.quant.quantizers.pams_weight_quantizer import PAMSWeightQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


def calibrated(bits, lower, upper):
    quantizer = PAMSQuantizer(QuantSpec(bits, symmetric=True))
    quantizer.load_calibration(Bounds(torch.tensor(lower), torch.tensor(upper)))
    return quantizer


def test_values_by_hand():
    quantizer = calibrated(3, -1.5, 0.5)  # alpha 1.5, steps of 0.5
    x = torch.tensor([-9.0, -1.3, -0.2, 0.2, 0.3, 1.4, 9.0])
    assert quantizer(x).tolist() == [-1.5, -1.5, 0.0, 0.0, 0.5, 1.5, 1.5]
    assert quantizer.codes(x).tolist() == [0, 0, 3, 3, 4, 6, 6]


@pytest.mark.parametrize("bits", range(2, 9))
def test_it_has_one_value_less_than_codes(bits):
    quantizer = calibrated(bits, -1.0, 1.0)
    assert quantizer(torch.linspace(-2, 2, 10001)).unique().numel() == 2**bits - 1


def test_gradients_by_hand():
    quantizer = calibrated(3, -1.5, 1.5)
    x = torch.tensor([-9.0, -0.7, 0.2, 0.65, 9.0], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    quantizer(x).backward(upstream)
    assert x.grad.tolist() == [0.0, 2.0, 4.0, 8.0, 0.0]
    rounding = [2 * (-0.5 + 0.7), 4 * (0.0 - 0.2), 8 * (0.5 - 0.65)]  # of the values, over alpha
    assert quantizer.alpha.grad.item() == pytest.approx(-1 + sum(rounding) / 1.5 + 16, rel=1e-5)


def test_an_alpha_that_training_made_negative_runs_and_can_return():
    quantizer = calibrated(4, -1.0, 1.0)
    with torch.no_grad():
        quantizer.alpha.fill_(-0.1)
    output = quantizer(torch.tensor([1.0, 2.0]))
    output.sum().backward()
    assert bool(output.isfinite().all()) and quantizer.alpha.grad.item() == pytest.approx(2.0)


def test_bounds_that_cannot_be_used_are_refused():
    for lower, upper in ((torch.tensor(torch.nan), torch.tensor(1.0)), (torch.zeros(2), torch.ones(2))):
        with pytest.raises(QuantizationError, match="finite and of the shape"):
            PAMSQuantizer(QuantSpec(4, symmetric=True)).load_calibration(Bounds(lower, upper))


def weight_quantizer(spec, num_channels=None):
    quantizer = PAMSWeightQuantizer(spec, num_channels)
    quantizer.mark_calibrated()
    return quantizer


def test_the_grid_of_weights_follows_their_largest_magnitude():
    quantizer = weight_quantizer(QuantSpec(3, symmetric=True))
    weight = torch.tensor([-3.0, -0.4, 0.6, 1.6], requires_grad=True)
    output = quantizer(weight)
    torch.testing.assert_close(output.detach(), torch.tensor([-3.0, 0.0, 1.0, 2.0]))
    assert quantizer.codes(weight).tolist() == [0, 3, 4, 5]
    output.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert weight.grad.tolist() == [1.0, 2.0, 3.0, 4.0]
    torch.testing.assert_close(quantizer(weight.detach() / 7), output.detach() / 7)


def test_weights_per_channel_are_quantized_one_by_one():
    spec = QuantSpec(4, symmetric=True, granularity="per_channel", channel_axis=0)
    weight = torch.randn(3, 4, 3, 3) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1, 1)
    rows = [weight_quantizer(QuantSpec(4, symmetric=True))(row) for row in weight]
    torch.testing.assert_close(weight_quantizer(spec, 3)(weight), torch.stack(rows))


def test_it_has_no_state_but_bits_and_that_it_is_calibrated():
    assert set(weight_quantizer(QuantSpec(4, symmetric=True)).state_dict()) == {"bits", "calibrated"}
