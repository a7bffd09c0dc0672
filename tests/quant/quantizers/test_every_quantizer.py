"""What holds for every registered quantizer, also for one that is added later."""

import copy
import io

import pytest
import torch

from basicsr.quant.calibration import (
    Bounds,
    CalibrationResult,
    OutlierBounds,
    StaticPoints,
    SubsetPoints,
    VaryingBounds,
)
from basicsr.quant.ops import functional
from basicsr.quant.quantizers.base import Channels
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY

NAMES = QUANTIZER_REGISTRY.names()
SPECS = [
    (QuantSpec(4), None),
    (QuantSpec(2), None),
    (QuantSpec(3, symmetric=True), None),
    (QuantSpec(2, symmetric=True), None),
    (QuantSpec(4, granularity="per_channel", channel_axis=1), 5),
    (QuantSpec(4, symmetric=True, granularity="per_channel", channel_axis=1), 5),
]
REFUSES = {
    "CADyQ": lambda spec: not spec.symmetric or spec.granularity == "per_channel",
    "DAQ": lambda spec: spec.symmetric,
    "DAQWeight": lambda spec: not spec.symmetric,
    "DDTB": lambda spec: spec.symmetric or spec.granularity == "per_channel",
    "DDTBWeight": lambda spec: spec.symmetric,
    "LearnedPoints": lambda spec: spec.symmetric or spec.granularity == "per_channel",
    "LogSqrt2": lambda spec: spec.symmetric or spec.granularity == "per_channel",
    "ODMWeight": lambda spec: not spec.symmetric,
    "PAMS": lambda spec: not spec.symmetric,
    "PAMSWeight": lambda spec: not spec.symmetric,
    "Piecewise": lambda spec: spec.symmetric or spec.granularity == "per_channel",
    "Subset": lambda spec: spec.symmetric,
}
"""Specifications that a quantizer cannot have by its nature; one that is not named here has to take all of them."""

CASES = [(name, spec) for name in NAMES for spec in SPECS if not REFUSES.get(name, lambda _: False)(spec[0])]
REFUSED = [(name, spec) for name in NAMES for spec in SPECS if (name, spec) not in CASES]
WITHOUT_PARAMETERS = {"DAQ", "DAQWeight", "DDTBWeight", "PAMSWeight", "Subset"}
"""Quantizers that learn nothing, because their values follow from the data or from calibration alone."""

NOT_UNIFORM = {"LearnedPoints", "LogSqrt2", "Piecewise"}
"""Quantizers with a static grid whose steps differ."""

WITHOUT_UNITS = {"CADyQ", "DDTB"}
"""Quantizers that learn what is not measured in quantization steps."""


def bounds(quantizer):
    return {
        "lower_bound": torch.full(quantizer.bounds_shape, -1.0),
        "upper_bound": torch.full(quantizer.bounds_shape, 1.5),
    }


def points(quantizer):
    shape = (*quantizer.bounds_shape, quantizer.spec.num_levels)
    return {
        "points": torch.linspace(-0.9, 1, shape[-1]).expand(shape),
        "word_indices": torch.ones(*shape, 3, dtype=torch.uint8),
        "word_sets": torch.ones(3, 4),
    }


RESULTS = {
    Bounds: lambda quantizer: Bounds(**bounds(quantizer)),
    CalibrationResult: lambda quantizer: Bounds(**bounds(quantizer)),
    VaryingBounds: lambda quantizer: VaryingBounds(**bounds(quantizer), range_variance=0.1),
    OutlierBounds: lambda quantizer: OutlierBounds(**bounds(quantizer), breakpoint=torch.tensor(0.3)),
    StaticPoints: lambda quantizer: StaticPoints(torch.linspace(-1.0, 1.5, quantizer.spec.num_levels)),
    SubsetPoints: lambda quantizer: SubsetPoints(**points(quantizer), post_relu=False),
}
"""By the kind of result that a quantizer takes: one that sets it up."""


def build(name, spec, num_channels, calibrated=True):
    channels = [Channels(5, 1)] if QUANTIZER_REGISTRY.get(name).takes_channels else []
    quantizer = QUANTIZER_REGISTRY.build({"type": name}, spec, num_channels, *channels, where="quantizer")
    if calibrated:
        quantizer.load_calibration(RESULTS[quantizer.takes](quantizer))
    return quantizer


def grids(quantizer, samples, channels):
    """Yield the indices of all values that come from one grid: of a sample, of a channel, or of the whole tensor."""
    by_sample, by_channel = quantizer.dynamic, quantizer.spec.granularity == "per_channel"
    for sample in range(samples) if by_sample else [slice(None)]:
        for channel in range(channels) if by_channel else [slice(None)]:
            yield sample, channel


def name_of(case):
    if isinstance(case, str):
        return case
    spec = case[0]
    return f"{spec.bits}{'symmetric' if spec.symmetric else ''}{spec.granularity}"


every_case = pytest.mark.parametrize(("name", "spec"), CASES, ids=name_of)


@pytest.fixture(params=NAMES)
def any_name(request):
    return request.param


def test_there_is_a_quantizer():
    assert "Affine" in NAMES
    assert REFUSES.keys() | WITHOUT_PARAMETERS <= set(NAMES)


@pytest.mark.parametrize(("name", "spec"), REFUSED, ids=name_of)
def test_what_it_cannot_be_is_refused(name, spec):
    with pytest.raises(QuantizationError, match=r"set 'quantization:.*to (true|false|per_tensor)"):
        build(name, *spec, calibrated=False)


@every_case
def test_no_more_distinct_values_than_codes(name, spec):
    quantizer = build(name, *spec)
    x = torch.randn(4, 5, 30, 25) * 3
    output, codes = quantizer(x), quantizer.codes(x)
    assert output.shape == codes.shape == x.shape
    assert codes.dtype == torch.uint8
    assert int(codes.max()) <= spec[0].max_code
    for grid in grids(quantizer, 4, 5):
        assert 1 < output[grid].unique().numel() <= spec[0].num_levels
        for code in codes[grid].unique():
            assert output[grid][codes[grid] == code].unique().numel() == 1


@every_case
def test_gradients_reach_input_and_parameters(name, spec):
    quantizer = build(name, *spec)
    x = torch.randn(100, 5, requires_grad=True)
    quantizer(x).square().sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert bool(x.grad.any())
    parameters = list(quantizer.parameters())
    assert bool(parameters) == (name not in WITHOUT_PARAMETERS)
    assert all(bool(torch.isfinite(p.grad).all()) for p in parameters)


@every_case
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


@every_case
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


@every_case
def test_a_state_dict_of_other_bits_is_refused(name, spec):
    other = QuantSpec(**{**spec[0].as_dict(), "bits": 8})
    parent = torch.nn.ModuleDict({"quantizer": build(name, *spec)})
    state = torch.nn.ModuleDict({"quantizer": build(name, other, spec[1])}).state_dict()
    with pytest.raises(QuantizationError, match=f"'quantizer' has {spec[0].bits} bits.*made with 8 bits"):
        parent.load_state_dict(state)


def test_channels_must_go_with_the_granularity(any_name):
    with pytest.raises(QuantizationError, match="per_channel needs a number of channels"):
        build(any_name, QuantSpec(4), 5, calibrated=False)
    with pytest.raises(QuantizationError, match="per_channel needs a number of channels"):
        build(any_name, QuantSpec(4, granularity="per_channel", channel_axis=0), None, calibrated=False)


@every_case
def test_printing_shows_bits_and_calibration(name, spec):
    assert f"bits={spec[0].bits}" in repr(build(name, *spec))
    assert "not calibrated" in repr(build(name, *spec, calibrated=False))


@every_case
def test_a_state_dict_with_nan_is_refused(name, spec):
    parent = torch.nn.ModuleDict({"quantizer": build(name, *spec)})
    for key, _ in parent.quantizer.named_parameters(recurse=False):
        state = parent.state_dict() | {
            f"quantizer.{key}": torch.full_like(parent.state_dict()[f"quantizer.{key}"], torch.nan)
        }
        with pytest.raises(QuantizationError, match=f"not finite in 'quantizer.{key}'"):
            parent.load_state_dict(state)


@every_case
def test_half_precision_keeps_its_type(name, spec):
    quantizer = build(name, *spec)
    x = torch.randn(4, 5, 6, dtype=torch.bfloat16, requires_grad=True)
    output = quantizer(x)
    output.sum().backward()
    assert output.dtype == x.grad.dtype == torch.bfloat16
    assert bool(torch.isfinite(output).all())


@every_case
def test_constant_data_give_finite_values(name, spec):
    quantizer = build(name, *spec)
    for value in (0.0, 0.5):
        x = torch.full((4, 5, 6), value, requires_grad=True)
        output = quantizer(x)
        output.sum().backward()
        assert bool(torch.isfinite(output).all() & torch.isfinite(x.grad).all())


@every_case
def test_codes_stand_for_values_between_the_affine_bounds(name, spec):
    """What is frozen into integers is what the network computes with; a grid that depends on the sample, or is not uniform, is refused."""
    quantizer = build(name, *spec)
    x = torch.randn(300, 5)
    points = quantizer.uneven_points()
    assert (points is not None) == (name in NOT_UNIFORM)
    if points is not None:
        assert (points.diff() > 0).all() and len(points) <= spec[0].num_levels
        assert (quantizer(x).unique()[:, None] - points).abs().amin(dim=1).max() < 1e-6
        torch.testing.assert_close(quantizer(points), points)
    if quantizer.dynamic or points is not None:
        with pytest.raises(QuantizationError, match="no fixed uniform grid"):
            quantizer.affine_bounds(x)
        return
    lower, upper = quantizer.affine_bounds(x)
    values = functional.dequantize(quantizer.codes(x), lower, upper, spec[0].bits, spec[0].channel_axis)
    torch.testing.assert_close(values, quantizer(x))


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_unit_of_a_parameter_moves_the_outermost_value_or_the_thresholds_by_one_step(name, case):
    quantizer = build(name, *case)
    if name in WITHOUT_UNITS:
        with pytest.raises(
            QuantizationError, match=f"is a {type(quantizer).__name__}, which learns something that is not"
        ):
            quantizer.parameter_units()
        return
    units = quantizer.parameter_units()
    assert list(units) == [name for name, _ in quantizer.named_parameters()]
    x = torch.cat([torch.linspace(-20, 20, 20001), torch.tensor([-1e3, 1e3])]).expand(1, 5, -1)  # beyond all bounds
    values = quantizer(x)[0, 0].unique()
    steps = values.diff()
    for parameter, unit in units.items():
        moved = copy.deepcopy(quantizer)
        assert unit.shape == moved.get_parameter(parameter).shape
        assert not unit.requires_grad
        with torch.no_grad():
            outwards = -1 if name in NOT_UNIFORM and parameter == "lower_bound" else 1  # inwards values would meet
            moved.get_parameter(parameter).add_(outwards * unit)
        if parameter == "shift":
            torch.testing.assert_close(moved(x), quantizer(x + steps.max()))
            continue
        after = moved(x)[0, 0].unique()
        if name in NOT_UNIFORM:
            distances = ((after - values).abs().max() - steps).abs()
            torch.testing.assert_close(distances.min(), torch.tensor(0.0), rtol=0, atol=1e-6)
            continue
        outermost = torch.stack([(after[0] - values[0]).abs(), (after[-1] - values[-1]).abs()])
        torch.testing.assert_close(outermost.max(), steps.max(), rtol=1e-3, atol=0)
