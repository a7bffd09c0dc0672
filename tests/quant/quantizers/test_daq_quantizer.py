"""DAQ: statistics of each channel of each sample, against an element-by-element computation."""

import pytest
import torch

from basicsr.quant.calibration import Bounds
from basicsr.quant.ops.gaussian import OPTIMAL_STEPS
from basicsr.quant.quantizers.daq_quantizer import DAQQuantizer
from basicsr.quant.quantizers.daq_weight_quantizer import DAQWeightQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

GENERAL = torch.randn(3, 4, 6, 7, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 3, 0.1, 20]).view(
    1, 4, 1, 1
) + torch.tensor([0.0, 5, -0.05, 2]).view(1, 4, 1, 1)


def calibrated(bits, x, axis=1, **options):
    spec = QuantSpec(bits) if axis is None else QuantSpec(bits, granularity="per_channel", channel_axis=axis)
    quantizer = DAQQuantizer(spec, None if axis is None else x.shape[axis], **options)
    bound = x.amin() * torch.ones(quantizer.bounds_shape)
    quantizer.load_calibration(Bounds(bound, bound + 1))
    return quantizer


def quantized_deviations(deviations, bits, step):
    """Uniform values around the mean in steps of `step` standard deviations, 2**bits of them."""
    centre, spread = deviations.mean(), deviations.std() * step
    positions = ((deviations - centre) / spread - 0.5).round() + 0.5
    limit = (2**bits - 1) / 2
    return centre + positions.clamp(-limit, limit) * spread


def by_hand(x, bits, post_relu, sigma_bits, step, sigma_step):
    """The values for one sample (C, H, W), one channel after the other."""
    deviations = []
    for channel in x:
        if post_relu:
            number = int((channel > 0).sum()) + 1
            deviations.append((channel.square().sum() / number - (channel.sum() / number) ** 2).sqrt())
        else:
            deviations.append(channel.std())
    deviations = torch.stack(deviations)
    if sigma_bits is not None:
        deviations = quantized_deviations(deviations, sigma_bits, sigma_step)
    values = []
    for channel, deviation in zip(x, deviations, strict=True):
        width = step * deviation
        if width <= 0:  # quantized away
            values.append(torch.zeros_like(channel) if post_relu else channel.mean().expand_as(channel))
        elif post_relu:
            values.append((channel / width).round().clamp(0, 2**bits - 1) * width)
        else:
            limit = (2**bits - 1) / 2
            position = ((channel - channel.mean()) / width - 0.5).round() + 0.5
            values.append(channel.mean() + position.clamp(-limit, limit) * width)
    return torch.stack(values)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("post_relu", [False, True])
@pytest.mark.parametrize("sigma_bits", [None, 4, 8])
def test_values_by_hand(bits, post_relu, sigma_bits):
    x = GENERAL.relu() if post_relu else GENERAL
    quantizer = calibrated(bits, x, sigma_bits=sigma_bits)
    assert bool(quantizer.post_relu) == post_relu
    expected = [by_hand(s, bits, post_relu, sigma_bits, OPTIMAL_STEPS[bits], OPTIMAL_STEPS.get(sigma_bits)) for s in x]
    torch.testing.assert_close(quantizer(x), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_the_released_steps_are_those_of_one_bit_fewer():
    quantizer = calibrated(2, GENERAL, step="released", sigma_bits=4)
    expected = torch.stack([by_hand(sample, 2, False, 4, OPTIMAL_STEPS[1], OPTIMAL_STEPS[3]) for sample in GENERAL])
    torch.testing.assert_close(quantizer(GENERAL), expected, rtol=1e-4, atol=1e-4)


def test_per_tensor_a_sample_has_one_mean_and_deviation():
    quantizer = calibrated(3, GENERAL, axis=None)
    expected = torch.stack([by_hand(s.reshape(1, 1, -1), 3, False, None, OPTIMAL_STEPS[3], None) for s in GENERAL])
    torch.testing.assert_close(quantizer(GENERAL), expected.reshape(GENERAL.shape), rtol=1e-4, atol=1e-4)


def test_channels_may_come_last():
    tokens = GENERAL.flatten(2).transpose(1, 2)  # N, L, C
    expected = calibrated(4, GENERAL)(GENERAL).flatten(2).transpose(1, 2)
    torch.testing.assert_close(calibrated(4, tokens, axis=-1)(tokens), expected)


def test_samples_do_not_see_each_other():
    quantizer = calibrated(4, GENERAL)
    assert torch.equal(quantizer(GENERAL)[1:2], quantizer(GENERAL[1:2]))


def test_after_a_relu_there_are_no_more_values_than_codes_though_data_reach_far():
    x = torch.randn(2, 3, 40, 40).relu() ** 4
    quantizer = calibrated(2, x)
    output = quantizer(x)
    assert all(output[n, c].unique().numel() == 4 for n in range(2) for c in range(3))
    assert quantizer.codes(x).max() == 3 and output.min() == 0


def test_the_gradient_is_that_of_the_identity():
    x = GENERAL.clone().requires_grad_()
    upstream = torch.randn(x.shape)
    calibrated(2, GENERAL)(x).backward(upstream)
    assert torch.equal(x.grad, upstream)


def test_what_cannot_be_is_refused():
    with pytest.raises(QuantizationError, match=r"'clamp' of DAQ is false.*more than 2\*\*3 values"):
        DAQQuantizer(QuantSpec(3), None, clamp=False)
    with pytest.raises(QuantizationError, match="axis 0 cannot hold the channels"):
        DAQQuantizer(QuantSpec(3, granularity="per_channel", channel_axis=0), 4)
    with pytest.raises(QuantizationError, match="bits is 9"):
        DAQQuantizer(QuantSpec(3), None, sigma_bits=9)


@pytest.mark.parametrize(("step", "bits"), [("optimal", 2), ("optimal", 4), ("released", 2), ("released", 4)])
def test_weights_by_hand(step, bits):
    quantizer = DAQWeightQuantizer(QuantSpec(bits, symmetric=True), None, step=step)
    quantizer.mark_calibrated()
    weight = torch.randn(4, 3, 3, 3) * 0.1 + 0.02
    width = OPTIMAL_STEPS[bits if step == "optimal" else bits - 1] * weight.std()
    limit = (2**bits - 1) / 2
    expected = ((weight / width - 0.5).round() + 0.5).clamp(-limit, limit) * width
    leaf = weight.clone().requires_grad_()
    output = quantizer(leaf)
    torch.testing.assert_close(output.detach(), expected)
    output.sum().backward()
    assert leaf.grad.unique().tolist() == [1.0]
