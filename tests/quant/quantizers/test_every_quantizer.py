"""What holds for every registered quantizer, also for one that is added later."""

import io

import pytest
import torch

from basicsr.quant.calibration import Bounds
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY

NAMES = QUANTIZER_REGISTRY.names()
SPECS = [
    (QuantSpec(4), None),
    (QuantSpec(2), None),
    (QuantSpec(3, symmetric=True), None),
    (QuantSpec(4, granularity="per_channel", channel_axis=1), 5),
]
RESULTS = {
    Bounds: lambda quantizer: Bounds(torch.full(quantizer.bounds_shape, -1.0), torch.full(quantizer.bounds_shape, 1.5)),
}
"""By the kind of result that a quantizer takes: one that sets it up."""


def build(name, spec, num_channels, calibrated=True):
    quantizer = QUANTIZER_REGISTRY.build({"type": name}, spec, num_channels, where="quantizer")
    if calibrated:
        quantizer.load_calibration(RESULTS[quantizer.takes](quantizer))
    return quantizer


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=SPECS, ids=lambda p: f"{p[0].bits}{p[0].symmetric}{p[0].granularity}")
def spec(request):
    return request.param


def test_there_is_a_quantizer():
    assert "Affine" in NAMES


def test_no_more_distinct_values_than_codes(name, spec):
    quantizer = build(name, *spec)
    x = torch.randn(3000, 5) * 3
    output, codes = quantizer(x), quantizer.codes(x)
    assert output.shape == x.shape
    assert codes.dtype == torch.uint8
    assert int(codes.max()) <= spec[0].max_code
    for channel in range(5):
        assert output[:, channel].unique().numel() <= spec[0].num_levels
    for code in codes[:, 0].unique():
        assert output[:, 0][codes[:, 0] == code].unique().numel() == 1


def test_gradients_reach_input_and_parameters(name, spec):
    quantizer = build(name, *spec)
    x = torch.randn(100, 5, requires_grad=True)
    quantizer(x).square().sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    parameters = list(quantizer.parameters())
    assert parameters
    assert all(bool(torch.isfinite(p.grad).all()) for p in parameters)


def test_the_state_dict_is_the_whole_state_and_holds_only_tensors(name, spec):
    quantizer, fresh = build(name, *spec), build(name, *spec, calibrated=False)
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert int(state["bits"]) == spec[0].bits
    assert bool(state["calibrated"])
    assert fresh.load_state_dict(state) == ([], [])
    x = torch.randn(50, 5)
    assert torch.equal(fresh(x), quantizer(x))


def test_running_uncalibrated_is_refused_until_a_calibrated_state_is_loaded(name, spec):
    quantizer = build(name, *spec, calibrated=False)
    quantizer.name = "body.0.act_quantizer"
    uncalibrated = quantizer.state_dict()
    for method in (quantizer, quantizer.codes):
        with pytest.raises(QuantizationError, match=r"'body\.0\.act_quantizer' has no bounds yet. Calibrate"):
            method(torch.randn(4, 5))
    quantizer.load_state_dict(build(name, *spec).state_dict())
    quantizer(torch.randn(4, 5))
    quantizer.load_state_dict(uncalibrated | {"calibrated": torch.tensor(False)})
    with pytest.raises(QuantizationError, match="no bounds yet"):
        quantizer(torch.randn(4, 5))


def test_a_state_dict_of_other_bits_is_refused(name, spec):
    other = QuantSpec(**{**spec[0].as_dict(), "bits": 8})
    parent = torch.nn.ModuleDict({"quantizer": build(name, *spec)})
    state = torch.nn.ModuleDict({"quantizer": build(name, other, spec[1])}).state_dict()
    with pytest.raises(QuantizationError, match=f"'quantizer' has {spec[0].bits} bits.*made with 8 bits"):
        parent.load_state_dict(state)


def test_channels_must_go_with_the_granularity(name):
    with pytest.raises(QuantizationError, match="per_channel needs a number of channels"):
        build(name, QuantSpec(4), 5, calibrated=False)
    with pytest.raises(QuantizationError, match="per_channel needs a number of channels"):
        build(name, QuantSpec(4, granularity="per_channel", channel_axis=0), None, calibrated=False)


def test_printing_shows_bits_and_calibration(name, spec):
    assert f"bits={spec[0].bits}" in repr(build(name, *spec))
    assert "not calibrated" in repr(build(name, *spec, calibrated=False))
