"""What all calibrators share: conversion, refusals, constants, passes."""

import pytest
import torch

from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import CALIBRATOR_REGISTRY

NAMES = ["MinMax", "Percentile", "DOBI", "DBDC"]
PER_TENSOR = QuantSpec(4)
SYMMETRIC = QuantSpec(4, symmetric=True)
PER_CHANNEL = QuantSpec(4, granularity="per_channel", channel_axis=1)


def build(name: str, spec: QuantSpec = PER_TENSOR):
    return CALIBRATOR_REGISTRY.build({"type": name}, spec, where="calibrator")


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def test_bounds_are_float32_scalars(name):
    bounds = calibrate_tensor(build(name), torch.randn(3, 5, 7))
    for bound in (bounds.lower_bound, bounds.upper_bound):
        assert bound.dtype == torch.float32
        assert bound.shape == ()
    assert bounds.lower_bound < bounds.upper_bound
    assert not bounds.constant


def test_symmetric_bounds_are_opposite(name):
    bounds = calibrate_tensor(build(name, SYMMETRIC), torch.rand(500) * 3 - 1)
    assert bounds.lower_bound == -bounds.upper_bound
    assert 0 < bounds.upper_bound <= 2


def test_per_channel_equals_channels_alone(name):
    tensor = torch.randn(4, 3, 5, 6) * torch.tensor([1.0, 10.0, 0.1]).view(1, 3, 1, 1)
    bounds = calibrate_tensor(build(name, PER_CHANNEL), tensor)
    assert bounds.lower_bound.shape == bounds.upper_bound.shape == (3,)
    for channel in range(3):
        alone = calibrate_tensor(build(name), tensor[:, channel])
        assert bounds.lower_bound[channel] == alone.lower_bound
        assert bounds.upper_bound[channel] == alone.upper_bound


def test_channel_axis_may_be_negative_and_of_a_vector(name):
    tensor = torch.randn(40, 3)
    last = calibrate_tensor(build(name, QuantSpec(4, granularity="per_channel", channel_axis=-1)), tensor)
    second = calibrate_tensor(build(name, PER_CHANNEL), tensor)
    assert torch.equal(last.upper_bound, second.upper_bound)
    vector = calibrate_tensor(build(name, QuantSpec(4, granularity="per_channel", channel_axis=0)), torch.arange(3.0))
    assert vector.constant
    assert torch.equal(vector.lower_bound, torch.arange(3.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_converted_to_float32(name, dtype):
    tensor = torch.randn(300, dtype=torch.float64).to(dtype)
    bounds, expected = (calibrate_tensor(build(name), x) for x in (tensor, tensor.float()))
    assert torch.equal(bounds.lower_bound, expected.lower_bound)
    assert torch.equal(bounds.upper_bound, expected.upper_bound)


def test_gradients_and_strides_do_not_matter(name):
    tensor = torch.randn(8, 6, 10, requires_grad=True)
    strided = tensor.transpose(0, 2)[::2]
    bounds, expected = (calibrate_tensor(build(name), x) for x in (strided, strided.detach().contiguous()))
    assert not bounds.lower_bound.requires_grad
    assert torch.equal(bounds.lower_bound, expected.lower_bound)
    assert torch.equal(bounds.upper_bound, expected.upper_bound)


@pytest.mark.parametrize("constant", [0.0, 1.5, -2.75, 1e-12, 1e30, -1e-45])
def test_constant_data_get_a_range_with_the_constant_as_code(name, constant):
    value = torch.tensor(constant)
    bounds = calibrate_tensor(build(name), value.expand(5, 3))
    assert bounds.constant
    assert bounds.lower_bound == value
    assert bounds.upper_bound > bounds.lower_bound
    assert (bounds.upper_bound - bounds.lower_bound) / 15 > 0
    assert bounds.upper_bound - bounds.lower_bound <= max(abs(constant) / 200, 1e-6)


@pytest.mark.parametrize("constant", [0.0, 1.5, -2.75])
def test_constant_data_with_symmetric_bounds(name, constant):
    bounds = calibrate_tensor(build(name, SYMMETRIC), torch.full((9,), constant))
    assert bounds.constant
    assert bounds.upper_bound == (abs(constant) or 2.0**-20)
    assert bounds.lower_bound == -bounds.upper_bound


def test_constant_over_several_batches_and_in_one_channel(name):
    tensor = torch.randn(6, 3, 7)
    tensor[:, 1] = 0.25
    calibrator = build(name, PER_CHANNEL)
    while True:
        for batch in tensor.split(2):
            calibrator.update(batch)
        if not calibrator.end_pass():
            break
    bounds = calibrator.finish()
    assert bounds.constant
    assert bounds.lower_bound[1] == 0.25
    assert bounds.upper_bound[1] == 0.25 + 2.0**-10
    expected = calibrate_tensor(build(name), tensor[:, 2])
    assert bounds.upper_bound[2] == expected.upper_bound


def test_single_element(name):
    bounds = calibrate_tensor(build(name), torch.tensor(3.0))
    assert bounds.constant
    assert bounds.lower_bound == 3


@pytest.mark.parametrize(
    "tensor", [[1.5, 1.5 + 2.0**-23], [1.5, 1.5 + 2.0**-23, 1.5 + 2.0**-22], [0.0, 1e-45], [-1e-45, 0.0]]
)
def test_bounds_stay_apart_after_rounding(name, tensor):
    bounds = calibrate_tensor(build(name), torch.tensor(tensor))
    assert bounds.lower_bound < bounds.upper_bound
    assert not bounds.constant


def test_nan_and_infinity_are_counted(name):
    tensor = torch.randn(20)
    tensor[3], tensor[4], tensor[7] = torch.nan, torch.nan, -torch.inf
    with pytest.raises(QuantizationError, match="2 NaN and 1 infinite .* among 20"):
        build(name).update(tensor)
    with pytest.raises(QuantizationError, match="0 NaN and 1 infinite"):
        build(name).update(torch.tensor([1.0, 1e300], dtype=torch.float64))
    with pytest.raises(QuantizationError, match="1 NaN"):
        build(name, PER_CHANNEL).update(torch.tensor([[0.0, 1.0], [torch.nan, 2.0]]))


def test_refusals(name):
    with pytest.raises(QuantizationError, match=r"empty.*\(0, 3\)"):
        build(name).update(torch.empty(0, 3))
    with pytest.raises(QuantizationError, match="saw no data"):
        build(name).end_pass()
    with pytest.raises(QuantizationError, match="not complete"):
        build(name).finish()
    with pytest.raises(QuantizationError, match="real numbers"):
        build(name).update(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(QuantizationError, match="channel_axis is 1, but the tensor has the shape"):
        build(name, PER_CHANNEL).update(torch.randn(4))
    calibrator = build(name, PER_CHANNEL)
    calibrator.update(torch.randn(2, 3))
    with pytest.raises(QuantizationError, match="4 channels"):
        calibrator.update(torch.randn(2, 4))


def test_range_beyond_float32_is_refused(name):
    tensor = torch.tensor([-3e38, 3e38]).repeat(100)
    with pytest.raises(QuantizationError, match="too far apart"):
        calibrate_tensor(build(name), tensor)


def test_data_after_the_last_pass_are_refused(name):
    calibrator = build(name)
    tensor = torch.randn(50)
    calibrate_tensor(calibrator, tensor)
    assert calibrator.end_pass() is False
    with pytest.raises(QuantizationError, match="needs no more data"):
        calibrator.update(tensor)


def test_later_passes_must_see_the_same_data():
    tensor = torch.randn(50)
    calibrator = build("Percentile")
    calibrator.update(tensor)
    assert calibrator.end_pass()
    with pytest.raises(QuantizationError, match="outside the range of the first"):
        calibrator.update(tensor * 2)
    calibrator.update(tensor[:30])
    with pytest.raises(QuantizationError, match="saw 30 elements, the first 50"):
        calibrator.end_pass()


@pytest.mark.parametrize("spec", [PER_TENSOR, SYMMETRIC, PER_CHANNEL])
@pytest.mark.parametrize("max_bins", [64, 2**16])
def test_rounding_that_differs_between_passes_is_harmless(name, spec, max_bins, monkeypatch):
    """As on a GPU whose kernels add in another order each time: the extremes, too, leave the range of the first pass."""
    for constant in ("_BINS_PER_TENSOR", "_BINS_PER_CHANNEL"):
        monkeypatch.setattr(f"basicsr.quant.calibrators.dobi_calibrator.{constant}", max_bins)
    tensor = torch.randn(200, 2, 40) ** 3
    generator = torch.Generator().manual_seed(1)
    calibrator = build(name, spec)
    calibrator.update(tensor)
    passes = 1
    while calibrator.end_pass():
        noise = 1e-6 * torch.randn(tensor.shape, generator=generator)
        calibrator.update(tensor * (1 + torch.where(tensor.abs() > tensor.abs().quantile(0.99), noise.abs(), noise)))
        passes += 1
    found, expected = calibrator.finish(), calibrate_tensor(build(name, spec), tensor)
    if name == "Percentile" or (name == "DOBI" and max_bins == 64):
        assert passes > 1
    step = (expected.upper_bound - expected.lower_bound) / 15
    for bound, want in ((found.lower_bound, expected.lower_bound), (found.upper_bound, expected.upper_bound)):
        assert ((bound - want).abs() <= 0.05 * step).all()
    assert (found.lower_bound >= tensor.min()).all() or spec.symmetric
    assert (found.upper_bound <= tensor.abs().max()).all()


def test_threads_are_as_before(name):
    torch.set_num_threads(2)
    calibrate_tensor(build(name), torch.randn(50))
    assert torch.get_num_threads() == 2


def test_unknown_option(name):
    with pytest.raises(OptionsError, match="calibrator:percent"):
        CALIBRATOR_REGISTRY.build({"type": name, "percent": 3}, PER_TENSOR, where="calibrator")
