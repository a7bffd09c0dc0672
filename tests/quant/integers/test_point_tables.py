"""Tables round as the quantizers do, but beside thresholds, and 8 bits hold points as nearly as they are said to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from basicsr.quant.calibration import Bounds, OutlierBounds, StaticPoints
from basicsr.quant.insertion.insert import CoverageRule, insert_quantizers
from basicsr.quant.integers.containers import largest_codes
from basicsr.quant.integers.point_tables import ContainedPoints, PointValues, contained_points
from basicsr.quant.modules.base import QModule
from basicsr.quant.spec import QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY

RESULTS = {
    "LearnedPoints": lambda levels: StaticPoints(
        torch.linspace(-1, 1.3, levels) * torch.linspace(-1, 1.3, levels).abs() + 0.3
    ),
    "LogSqrt2": lambda _: Bounds(torch.tensor(0.0), torch.tensor(0.9)),
    "Piecewise": lambda _: OutlierBounds(torch.tensor(-2.0), torch.tensor(3.0), breakpoint=torch.tensor(0.4)),
}
BITS = range(2, 7)


def build(name, bits):
    quantizer = QUANTIZER_REGISTRY.get(name)(QuantSpec(bits))
    quantizer.load_calibration(RESULTS[name](2**bits))
    return quantizer


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", RESULTS)
def test_a_value_gets_the_point_that_it_or_one_in_its_cell_has(name, bits):
    quantizer = build(name, bits)
    points = quantizer.uneven_points()
    table = PointValues(quantizer, points)
    x = torch.linspace(float(points[0]) - 1, float(points[-1]) + 1, 30_011)
    found, width = table(x), table.cells.width
    distances = (found[:, None] - points).abs()
    assert distances.amin(dim=1).max() < 1e-6
    assert ((quantizer(x - width) - width <= found) & (found <= quantizer(x + width) + width)).all()
    span, smallest = float(points[-1] - points[0]), float(points.diff().min())
    assert width <= max(smallest / 120, span / 16_000)  # powers of many bits lie closer to 0 than any cell
    assert width > smallest or len(distances.argmin(dim=1).unique()) == len(points)
    assert ((found - quantizer(x)).abs() < 1e-6).float().mean() > 0.98


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", RESULTS)
def test_integers_stand_for_the_same_points(name, bits):
    quantizer = build(name, bits)
    points = quantizer.uneven_points()
    floats, integers = (kind(quantizer, points) for kind in (PointValues, ContainedPoints))
    x = torch.linspace(-3, 4, 5_003)
    whole = integers(x) / integers.step + integers.zero_point
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-4)
    assert whole.min() >= 0 and whole.max() <= largest_codes(bits)[0]
    unit = max(integers.step, float(points.diff().max()))
    assert (integers(x) - floats(x)).abs().max() <= integers.moved * unit + 1e-6


@given(
    values=st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=40, unique=True),
    scale=st.floats(1e-6, 1e3),
    bits=st.integers(2, 8),
)
def test_points_are_moved_no_farther_than_said(values, scale, bits):
    points = torch.tensor(sorted(values), dtype=torch.float32) * scale
    integers, step, zero_point, moved = contained_points(points.unique(), bits)
    assert int(integers.min()) >= 0 and int(integers.max()) <= largest_codes(bits)[0] and 0 <= zero_point <= 255
    assert (integers.diff() >= 0).all()
    held = (integers - zero_point).double() * step
    assert (held - points.unique()).abs().max() <= step / 2 * (1 + 1e-6)
    assert 0 <= moved <= 0.5 * (1 + 1e-6)


def test_points_of_equal_steps_beside_zero_hardly_move():
    integers, step, zero_point, moved = contained_points(torch.tensor([-1.0, -0.25, 0.5, 2.0]), 2)
    torch.testing.assert_close(
        (integers - zero_point) * step, torch.tensor([-1.0, -0.25, 0.5, 2.0]), rtol=0, atol=0.003
    )
    assert moved < 0.003


def test_one_point_and_none_but_zero():
    for point in (0.0, -3.0, 0.7):
        quantizer = QUANTIZER_REGISTRY.get("LearnedPoints")(QuantSpec(2))
        quantizer.load_calibration(StaticPoints(torch.full((4,), point)))
        for kind in (PointValues, ContainedPoints):
            found = kind(quantizer, quantizer.uneven_points())(torch.tensor([-9.0, point, 9.0]))
            torch.testing.assert_close(found, torch.full((3,), point), rtol=0.01, atol=0)


@pytest.mark.parametrize("name", ["LearnedPoints", "Piecewise"])
@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, 4)], ids=["Conv2d", "Linear"])
@pytest.mark.parametrize("integer_linear", [True, False])
def test_layers_take_tables_for_their_inputs(name, layer, integer_linear):
    network = nn.Sequential(layer)
    insert_quantizers(
        network, [CoverageRule("*", f"Q{type(layer).__name__}")], 4, 4,
        activation_quantizer={"type": name}, weight_symmetric=True,
    )  # fmt: skip
    (module,) = (module for module in network.modules() if isinstance(module, QModule))
    module.act_quantizer.load_calibration(RESULTS[name](16))
    module.weight_quantizer.load_calibration(Bounds(torch.tensor(-0.5), torch.tensor(0.5)))
    form = module.runtime_form(integer_linear=integer_linear)
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    full, trained, exported = layer(x), module(x), form(x)
    noise = (trained - full).square().mean().sqrt()
    assert (exported - full).square().mean().sqrt() < 1.02 * noise
    assert (exported - trained).square().mean().sqrt() < 0.3 * noise
