"""Normalisation and quantization to the nearest point."""

import numpy as np
import pytest
import torch

from basicsr.quant.ops import subset
from basicsr.quant.spec import QuantizationError

GENERAL, POST_RELU = torch.tensor(False), torch.tensor(True)


def nearest_of_each_channel(x, points, post_relu):
    """The definition, one channel of one sample after the other, in float64."""
    output, codes = torch.empty_like(x, dtype=torch.float64), torch.empty(x.shape, dtype=torch.uint8)
    for sample in range(x.shape[0]):
        for channel in range(x.shape[1]):
            values = x[sample, channel].double()
            offset = 0.0 if post_relu else values.mean()
            scale = (values - offset).abs().max() + 1e-8
            distances = ((values - offset) / scale)[..., None] - points[channel].double()
            nearest = distances.abs().argmin(dim=-1)
            output[sample, channel] = points[channel].double()[nearest] * scale + offset
            codes[sample, channel] = nearest.to(torch.uint8)
    return output, codes


def random_points(channels, bits):
    return (torch.rand(channels, 2**bits) * 2 - 1).sort(dim=1).values


@pytest.mark.parametrize("kind", ["general", "postrelu"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_parity(reference, kind, bits):
    arrays = np.load(reference / "dfsq.npz")
    points = torch.from_numpy(arrays[f"opt_{kind}_b{bits}"]).float()
    x, post_relu = torch.from_numpy(arrays[f"test_{kind}"]), torch.tensor(kind == "postrelu")
    output = subset.fake_quantize(x, points, post_relu, 1)
    np.testing.assert_allclose(output, arrays[f"quant_{kind}_b{bits}"], rtol=0, atol=1e-5)
    last = subset.fake_quantize(x.movedim(1, -1), points, post_relu, -1)
    assert torch.equal(last.movedim(-1, 1), output)


def test_parity_of_the_normalisation(reference):
    arrays = np.load(reference / "dfsq.npz")
    for kind in ("general", "postrelu"):
        rows = subset.sample_rows(torch.from_numpy(arrays[f"x_{kind}"]), 1)
        normalized, _, _ = subset.normalize(rows, torch.tensor(kind == "postrelu"))
        np.testing.assert_allclose(normalized.transpose(0, 1).flatten(1), arrays[f"norm_{kind}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("post_relu", [GENERAL, POST_RELU], ids=["general", "post_relu"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [2**17, 100, 7])
def test_it_is_the_definition_whatever_the_blocks(post_relu, bits, block, monkeypatch):
    monkeypatch.setattr(subset, "_BLOCK", block)
    x, points = torch.randn(3, 5, 6, 7), random_points(5, bits)
    expected, expected_codes = nearest_of_each_channel(x, points, bool(post_relu))
    torch.testing.assert_close(subset.fake_quantize(x, points, post_relu, 1).double(), expected, rtol=0, atol=2e-6)
    assert torch.equal(subset.quantize(x, points, post_relu, 1), expected_codes)


def test_per_tensor_takes_the_range_of_each_sample():
    x, points = torch.randn(4, 3, 5, 5) * torch.tensor([1.0, 10, 100, 1000]).view(4, 1, 1, 1), random_points(1, 3)
    expected, _ = nearest_of_each_channel(x.view(4, 1, 3, 5, 5), points, False)
    output = subset.fake_quantize(x, points[0], GENERAL)
    torch.testing.assert_close(output.double(), expected.view(x.shape), rtol=1e-5, atol=1e-5)
    assert all(sample.unique().numel() <= 8 for sample in output)


def test_samples_do_not_influence_each_other():
    x, points = torch.randn(4, 3, 5, 5), random_points(3, 3)
    alone = [subset.fake_quantize(x[i : i + 1], points, GENERAL, 1) for i in range(4)]
    assert torch.equal(subset.fake_quantize(x, points, GENERAL, 1), torch.cat(alone))


def test_halfway_between_two_points_is_the_lower_one():
    points = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    codes = subset.quantize(torch.tensor([[-1.0, -0.5, 0.25, 0.75, 1.0]]), points, POST_RELU)
    assert codes.tolist() == [[0, 0, 1, 2, 3]]


def test_equal_points_are_one_value():
    points = torch.tensor([-0.5, 0.0, 0.0, 0.0])
    output = subset.fake_quantize(torch.tensor([[-1.0, -0.3, 0.0, 1.0]]), points, POST_RELU)
    assert output.tolist() == [[-0.5, -0.5, 0.0, 0.0]]


@pytest.mark.parametrize("value", [0.0, 0.3, -1e6, 1e-30, 1e30])
@pytest.mark.parametrize("post_relu", [GENERAL, POST_RELU], ids=["general", "post_relu"])
def test_a_constant_channel_stays_finite_and_close(value, post_relu):
    x = torch.randn(2, 3, 7, 7)
    x[:, 1] = value
    points = torch.tensor([-1.0, 0.0, 0.5, 1.0]).expand(3, 4)
    output = subset.fake_quantize(x, points, post_relu, 1)
    assert output.isfinite().all()
    torch.testing.assert_close(output[:, 1], x[:, 1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("post_relu", [GENERAL, POST_RELU], ids=["general", "post_relu"])
def test_the_gradient_passes_between_the_outermost_points(axis, post_relu):
    points = torch.tensor([-0.5, 0.0, 0.2, 0.5]).expand(3, 4)
    x = torch.randn(2, 3, 6, 6).movedim(1, axis).requires_grad_()
    upstream = torch.randn(x.shape)
    subset.fake_quantize(x, points, post_relu, axis).backward(upstream)
    with torch.no_grad():
        rows = x.movedim(axis, 1)
        centred = rows if post_relu else rows - rows.mean(dim=(2, 3), keepdim=True)
        inside = (centred / centred.abs().amax(dim=(2, 3), keepdim=True)).abs() <= 0.5
    assert 0 < inside.float().mean() < 1
    assert torch.equal(x.grad.movedim(axis, 1), upstream.movedim(axis, 1) * inside)


def test_half_precision_gets_the_codes_of_its_float32_values():
    x, points = torch.randn(2, 3, 20, dtype=torch.float16), random_points(3, 4)
    assert torch.equal(subset.quantize(x, points, GENERAL, 1), subset.quantize(x.float(), points, GENERAL, 1))
    output = subset.fake_quantize(x, points, GENERAL, 1)
    assert output.dtype == torch.float16
    assert torch.equal(output, subset.fake_quantize(x.float(), points, GENERAL, 1).half())


@pytest.mark.parametrize(("shape", "axis"), [((), None), ((4,), 0), ((4,), -1), ((4, 3), -2)])
def test_a_tensor_without_samples_is_refused(shape, axis):
    with pytest.raises(QuantizationError, match="has no samples"):
        subset.sample_rows(torch.zeros(shape), axis)
