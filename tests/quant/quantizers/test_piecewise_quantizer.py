"""The piecewise quantizer: its values by hand, its gradients, its state, and what is refused."""

import json

import pytest
import torch

from basicsr.archs import build_network
from basicsr.deploy.integer import integer_network
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.quant.calibration import OutlierBounds
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.ops import piecewise
from basicsr.quant.quantizers.piecewise_quantizer import PiecewiseQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from tests.deploy.networks import EDSR, IMAGE


def quantizer_of(bits, lower, upper, middle):
    quantizer = PiecewiseQuantizer(QuantSpec(bits))
    quantizer.name = "body.0.act_quantizer"
    quantizer.load_calibration(bounds(lower, upper, middle))
    return quantizer


def bounds(lower, upper, middle):
    return OutlierBounds(torch.tensor(lower), torch.tensor(upper), breakpoint=torch.tensor(middle))


@pytest.mark.parametrize(
    ("bits", "numbers", "expected"),
    [
        (4, (-6.0, 15.0, 3.0), [-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 7, 11, 15]),
        (3, (-9.0, 7.0, 3.0), [-9, -3, 0, 3, 7]),
        (2, (-4.0, 8.0, 1.0), [-4, -1, 1, 8]),  # the formula would leave 0 alone
        (2, (0.0, 5.0, 1.0), [0, 1, 3, 5]),  # behind a ReLU outliers are on one side, which has the points of both
        (3, (0.0, 7.0, 3.0), [0, 1.5, 3, 5, 7]),
        (3, (-7.0, 2.0, 4.0), [-7, -5.5, -4, -1, 2]),
        (3, (-1.0, 2.0, 4.0), [-1, 0.5, 2]),  # moving averages may stay within the percentile: no outliers
    ],
)
def test_values_by_hand(bits, numbers, expected):
    quantizer = quantizer_of(bits, *numbers)
    expected = torch.tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(piecewise.points_of(*quantizer._grid()), expected)
    outside = torch.cat([expected[:1] - 100, expected, expected[-1:] + 100])
    torch.testing.assert_close(quantizer(outside)[1:-1], expected)
    assert quantizer.codes(outside).tolist() == [0, *range(len(expected)), len(expected) - 1]
    x = torch.linspace(float(expected[0]) - 1, float(expected[-1]) + 1, 4001)
    nearest = expected[(x[:, None] - expected).abs().argmin(1)]
    decided = (x[:, None] - expected).abs().sort(1).values.diff(dim=1)[:, 0] > 1e-4  # not half-way between two
    torch.testing.assert_close(quantizer(x)[decided], nearest[decided])


def test_0_is_a_value_where_outliers_lie_on_both_sides():
    for bits in (3, 4, 8):
        quantizer = quantizer_of(bits, -1.7, 2.3, 0.9)
        assert float(quantizer(torch.zeros(1)).detach().abs()) < 1e-6
        points = piecewise.points_of(*quantizer._grid()).detach()
        assert len(points) == 2**bits - 3 and int((points.abs() < 0.9 + 1e-6).sum()) == 2 ** (bits - 1) - 1


def test_without_outliers_values_are_those_of_a_uniform_grid():
    quantizer = quantizer_of(4, 0.0, 6.0, 6.0)
    x = torch.tensor([-1.0, 0.4, 0.6, 3.2, 5.7, 9.0])
    torch.testing.assert_close(quantizer(x), torch.tensor([0.0, 0.0, 1.0, 3.0, 6.0, 6.0]))


def test_gradients_by_hand():
    """l = -9, u = 7, t = 3 at 3 bits: steps 6, 3 and 4. A value moves with the steps below it; rounding counts as the identity."""
    quantizer = quantizer_of(3, -9.0, 7.0, 3.0)
    x = torch.tensor([-20.0, -4.0, 0.5, 6.0, 9.0], requires_grad=True)
    found = []
    for index in range(5):
        quantizer.zero_grad()
        x.grad = None
        quantizer(x)[index].backward()
        bounds = (quantizer.lower_bound, quantizer.upper_bound, quantizer.breakpoint)
        found.append([float(x.grad[index]), *(float(bound.grad) for bound in bounds)])
    expected = [
        [0, 1, 0, 0],  # clipped to l
        [1, -1 / 6, 0, -1 / 6],  # -3 = l + s: error 1/6 of a step, and ds/dl = -1, ds/dt = -1
        [1, 0, 0, -1 / 6],  # 0 = -t + s: error -1/6 of a step, ds/dt = 1
        [1, 0, 0.25, -0.25],  # 7 = t + s: error 1/4, ds/du = 1, ds/dt = -1
        [0, 0, 1, 0],  # clipped to u
    ]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_bounds_and_breakpoints_that_training_drove_past_each_other_stay_finite():
    for numbers in ((-1.0, -2.0, 0.5), (-1.0, 2.0, -0.3), (-1.0, 2.0, 5.0)):
        quantizer = quantizer_of(4, -4.0, 4.0, 1.0)
        with torch.no_grad():
            for name, value in zip(("lower_bound", "upper_bound", "breakpoint"), numbers, strict=True):
                quantizer.get_parameter(name).fill_(value)
        output = quantizer(torch.linspace(-5, 5, 1001))
        output.sum().backward()
        assert bool(output.isfinite().all()) and output.unique().numel() <= 16
        assert all(bool(parameter.grad.isfinite()) for parameter in quantizer.parameters())


@pytest.mark.parametrize(
    "numbers", [(0.0, 0.0, 1.0), (1.0, -1.0, 1.0), (0.0, 1.0, 0.0), (float("nan"), 1.0, 1.0), ([0.0, 0.0], 1.0, 1.0)]
)
def test_a_calibration_that_cannot_be_used_is_refused(numbers):
    with pytest.raises(QuantizationError, match=r"'body\.0\.act_quantizer' cannot be used: they must be finite"):
        quantizer_of(4, *numbers)


def test_a_checkpoint_with_other_steps_is_refused():
    parent = torch.nn.ModuleDict({"a": quantizer_of(4, -4.0, 4.0, 1.0)})
    state = parent.state_dict()
    assert state["a.steps"].tolist() == [3, 6, 3]
    parent.load_state_dict({**state, "a.steps": torch.tensor([0, 6, 6])})
    assert parent["a"].steps.tolist() == [0, 6, 6]
    for steps in ([3, 7, 3], [3, 6]):
        with pytest.raises(QuantizationError, match=r"holds in 'a.steps' .*4 bits have one of"):
            parent.load_state_dict({**state, "a.steps": torch.tensor(steps)})


def test_results_are_written_into_reports():
    assert json.loads(json.dumps(bounds(-1.0, 2.0, 0.5).as_dict()))["breakpoint"] == 0.5


def test_packed_files_and_graphs_hold_it_and_integers_refuse_it(tmp_path):
    """As with other grids that are not uniform, weights are packed as codes and activations keep their parameters."""
    torch.manual_seed(0)
    network = build_network(EDSR).eval()
    quantization_map = insert_quantizers(network, "body", 4, 4, activation_quantizer={"type": "Piecewise"})
    for name, quantizer in named_quantizers(network):
        weight = name.endswith("weight_quantizer")
        quantizer.set_bounds(-0.2, 0.2) if weight else quantizer.load_calibration(bounds(-1.0, 1.5, 0.6))
    save_packed(network, EDSR, quantization_map, tmp_path / "packed.safetensors", scale=2)
    packed, _ = load_packed(tmp_path / "packed.safetensors")
    with torch.no_grad():
        assert torch.equal(packed(IMAGE), network(IMAGE))
    with pytest.raises(QuantizationError, match="is a PiecewiseQuantizer, which has no fixed uniform grid"):
        integer_network(network)
    with torch.no_grad():
        quantized, in_integers = network(IMAGE), eight_bit_network(network)(IMAGE)
        with bypass_quantizers(network):
            noise = quantized - network(IMAGE)
    assert (in_integers - quantized).square().mean() < 0.001 * noise.square().mean()
