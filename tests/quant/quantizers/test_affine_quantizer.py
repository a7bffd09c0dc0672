"""The affine quantizer: its bounds and its state dict."""

import copy

import pytest
import torch

from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec


def test_keys_of_the_state_dict():
    quantizer = AffineQuantizer(QuantSpec(4))
    assert {k: tuple(v.shape) for k, v in quantizer.state_dict().items()} == {
        "lower_bound": (),
        "upper_bound": (),
        "bits": (),
        "calibrated": (),
    }
    per_channel = AffineQuantizer(QuantSpec(4, granularity="per_channel", channel_axis=0), 7)
    assert per_channel.lower_bound.shape == per_channel.upper_bound.shape == (7,)
    assert [name for name, _ in AffineQuantizer(QuantSpec(4, symmetric=True)).named_parameters()] == ["upper_bound"]


def test_forward_is_the_function_with_its_bounds():
    quantizer = AffineQuantizer(QuantSpec(3))
    quantizer.set_bounds(-0.5, torch.tensor(0.75))
    x = torch.randn(100)
    assert torch.equal(quantizer(x), fake_quantize(x, torch.tensor(-0.5), torch.tensor(0.75), 3))


def test_symmetric_bounds_take_the_larger_magnitude_and_share_one_gradient():
    quantizer = AffineQuantizer(QuantSpec(4, symmetric=True))
    quantizer.set_bounds(-2.0, 1.0)
    assert [b.tolist() for b in quantizer.bounds()] == [-2.0, 2.0]
    quantizer(torch.tensor([-5.0, 5.0, 5.0])).sum().backward()
    assert float(quantizer.upper_bound.grad) == 1.0  # two elements pull it up, one down


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf")), (-float("inf"), 0.0), (0.0, 1e-13)],
)
def test_bounds_that_cannot_be_used_are_refused_and_change_nothing(lower, upper):
    quantizer = AffineQuantizer(QuantSpec(4))
    quantizer.name = "layers.0.act_quantizer"
    with pytest.raises(QuantizationError, match=r"The bounds .* 'layers\.0\.act_quantizer' cannot be used.*finite"):
        quantizer.set_bounds(lower, upper)
    assert not bool(quantizer.calibrated)
    assert [b.tolist() for b in quantizer.bounds()] == [-1.0, 1.0]


def test_the_channel_with_unusable_bounds_is_named():
    quantizer = AffineQuantizer(QuantSpec(4, granularity="per_channel", channel_axis=0), 3)
    with pytest.raises(QuantizationError, match="channel 1"):
        quantizer.set_bounds(torch.tensor([0.0, 2.0, 0.0]), torch.ones(3))
    with pytest.raises(QuantizationError, match=r"have the shapes \(2,\) and \(2,\), but it needs \(3,\)"):
        quantizer.set_bounds(torch.zeros(2), torch.ones(2))
    with pytest.raises(QuantizationError, match=r"needs \(\)"):
        AffineQuantizer(QuantSpec(4)).set_bounds(torch.zeros(2), torch.ones(2))


def test_bounds_of_shape_1_are_accepted():
    quantizer = AffineQuantizer(QuantSpec(4))
    state = quantizer.state_dict() | {
        "lower_bound": torch.tensor([-0.25]),
        "upper_bound": torch.tensor([0.5]),
        "calibrated": torch.tensor(True),
    }
    quantizer.load_state_dict(state)
    assert [b.tolist() for b in quantizer.bounds()] == [-0.25, 0.5]


def test_a_state_dict_with_nan_is_refused():
    quantizer = torch.nn.ModuleDict({"a": AffineQuantizer(QuantSpec(4))})
    state = quantizer.state_dict() | {"a.upper_bound": torch.tensor(float("nan"))}
    with pytest.raises(QuantizationError, match=r"not finite in 'a\.upper_bound'"):
        quantizer.load_state_dict(state)


def test_bounds_that_training_made_cross_survive_saving_and_loading():
    quantizer = AffineQuantizer(QuantSpec(4))
    quantizer.set_bounds(0.0, 1.0)
    with torch.no_grad():
        quantizer.lower_bound.fill_(2.0)
    fresh = AffineQuantizer(QuantSpec(4))
    fresh.load_state_dict(quantizer.state_dict())
    assert fresh(torch.linspace(-3, 3, 7)).unique().tolist() == [2.0]


@pytest.mark.parametrize("window", [0.0, -0.5, 1.5, float("nan")])
def test_windows_are_shares_of_a_step(window):
    with pytest.raises(QuantizationError, match="threshold_window"):
        AffineQuantizer(QuantSpec(4), threshold_window=window)


def test_a_copy_is_independent():
    quantizer = AffineQuantizer(QuantSpec(4))
    quantizer.set_bounds(0.0, 1.0)
    other = copy.deepcopy(quantizer)
    other.set_bounds(-3.0, 3.0)
    assert [b.tolist() for b in quantizer.bounds()] == [0.0, 1.0]


def test_bypass_lets_the_tensor_through_uncalibrated():
    quantizer = AffineQuantizer(QuantSpec(2))
    quantizer.bypass = True
    x = torch.randn(5)
    assert quantizer(x) is x
    assert "bypass" not in "".join(quantizer.state_dict())


@pytest.mark.gpu
def test_training_step_on_a_gpu_reads_nothing_back():
    quantizer = AffineQuantizer(QuantSpec(4)).cuda()
    quantizer.set_bounds(-1.0, 1.0)
    x = torch.randn(64, device="cuda", requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        quantizer(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
