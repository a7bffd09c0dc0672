"""Channels behind a LayerNorm with one range, in networks with and without such norms."""

import copy
import logging

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.capture import bypass_quantizers, count_codes
from basicsr.training.calibration.network_calibration import calibrate_network, check_calibrators
from basicsr.training.calibration.norm_folding import fold_norms
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import CalibrationOptions
from tests.quant.networks import TinyEdsr, TinySwin


def options(crops=4, kind="MinMax"):
    return CalibrationOptions(weights={"type": "MinMax"}, activations={"type": kind}, fold_norms=crops)


def uneven():
    """A network whose normalised channels differ fiftyfold in size and lie about different values."""
    torch.manual_seed(0)
    network = TinySwin(groups=1, depth=1)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.LayerNorm):
                sizes = torch.logspace(-1, 0.7, 12)[torch.randperm(12)]
                module.weight.copy_(sizes)
                module.bias.copy_(2 * torch.randn(12) * sizes)
                layer = network.get_submodule(name.replace("norm1", "attn.qkv").replace("norm2", "mlp.fc1"))
                layer.weight.div_(sizes)
    return network.eval()


def quantized(network, coverage="2dquant", bits=4, **more):
    result = copy.deepcopy(network)
    insert_quantizers(result, coverage, bits, bits, weight_granularity="per_channel", **more)
    return result.requires_grad_(False).eval()


def values_of(student, crops):
    """Return the distinct values that each quantizer of activations puts out."""
    seen = []
    for _, quantizer in named_quantizers(student, "activation"):
        quantizer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.unique()))
    student(crops)
    return seen


@pytest.fixture
def crops():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_the_network_in_full_precision_stays_the_same_and_all_channels_have_one_range(crops):
    network = uneven()
    student = quantized(network)
    assert len(fold_norms(student, crops, options())) == 2
    with torch.no_grad(), bypass_quantizers(student):
        torch.testing.assert_close(student(crops), network(crops), rtol=1e-5, atol=1e-5)
        seen = []
        norm = student.layers[0].residual_group.blocks[0].norm1
        norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output.flatten(0, 1)))
        student(crops)
    for bound in (seen[0].amin(0), seen[0].amax(0)):
        torch.testing.assert_close(bound, bound.mean().expand(12), rtol=1e-4, atol=1e-4)
    assert not torch.equal(norm.weight, network.layers[0].residual_group.blocks[0].norm1.weight)


def test_quantizers_with_a_calibrator_of_their_own_are_behind_the_same_folded_norms(crops):
    affine, points = (quantized(uneven(), activation_quantizer={"type": kind}) for kind in ("Affine", "LearnedPoints"))
    for student in (affine, points):
        calibrate_network(student, crops, options())
    for name, norm in affine.named_modules():
        if isinstance(norm, nn.LayerNorm):
            assert torch.equal(points.get_submodule(name).weight, norm.weight)
    assert max(len(codes) for codes in values_of(points, crops)) <= 16


@pytest.mark.parametrize("more", [{}, {"input_scales": True}])
def test_outputs_come_nearer_on_one_grid_of_few_codes(crops, more):
    network = uneven()
    errors = {}
    for number in (0, 4):
        student = quantized(network, **({} if number == 0 else more))
        calibrate_network(student, crops, options(number))
        with torch.no_grad():
            errors[number] = float((student(crops) - network(crops)).square().mean())
    assert errors[4] < 0.25 * errors[0]
    quantizer = student.layers[0].residual_group.blocks[0].attn.qkv.q.act_quantizer
    with torch.no_grad(), count_codes(student) as codes:
        student(crops)
    assert quantizer.upper_bound.shape == () and max(codes.values()) <= 16


def test_a_second_calibration_gives_the_same_network(crops):
    student = quantized(uneven(), input_scales=True)
    calibrate_network(student, crops, options())
    first = {key: value.clone() for key, value in student.state_dict().items()}
    calibrate_network(student, crops, options())
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, first[key], rtol=1e-3, atol=1e-4, msg=key)


def test_constant_crops_leave_a_network_that_is_the_same(crops):
    network = uneven()
    student = quantized(network)
    fold_norms(student, torch.full_like(crops, 0.5), options())
    with torch.no_grad(), bypass_quantizers(student):
        torch.testing.assert_close(student(crops), network(crops), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("number", [0, 4])
def test_a_network_without_norms_does_without(crops, caplog, number):
    network = TinyEdsr()
    student = quantized(network, "body")
    with caplog.at_level(logging.INFO):
        assert fold_norms(student, crops, options(number)) == []
    assert ("No LayerNorm could be folded" in caplog.text) == (number > 0)
    assert all(torch.equal(student.state_dict()[key], value) for key, value in network.state_dict().items())


class Obstacles(nn.Module):
    """Norms in front of layers that cannot take a change back."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.skipped, self.before_bare = nn.LayerNorm(3, bias=False), nn.LayerNorm(3), nn.LayerNorm(3)
        self.first, self.second, self.bare = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3, bias=False)

    def forward(self, x):
        x = self.first(self.plain(x.movedim(1, -1)))
        y = self.skipped(x)
        return self.bare(self.before_bare(y + self.second(y))).movedim(-1, 1)


def test_a_norm_that_cannot_be_folded_is_named_with_the_reason(crops, caplog):
    student = quantized(Obstacles(), [CoverageRule("*", "QLinear")])
    with caplog.at_level(logging.INFO):
        assert fold_norms(student, crops, options()) == []
    for text in (
        "The norm 'plain' is not folded into the layers behind it: it has no weight and bias",
        "'skipped' is not folded into the layers behind it: its output goes through add besides",
        "'before_bare' is not folded into the layers behind it: 'bare', which reads it, has no bias",
    ):
        assert text in caplog.text


def test_weights_alone_leave_nothing_to_fold(crops, caplog):
    student = copy.deepcopy(uneven())
    insert_quantizers(student, "2dquant", 4, 32)
    assert fold_norms(student.requires_grad_(False), crops, options()) == []
    assert "none of the layers that read it quantizes its input" in caplog.text
    assert not list(named_quantizers(student, "activation"))


def test_what_has_no_bounds_of_a_tensor_is_refused_before_the_work():
    student = quantized(uneven(), activation_granularity="per_channel")
    with pytest.raises(OptionsError, match="'layers.0.*attn.qkv.q.act_quantizer' has a range for each. Set it to 0"):
        check_calibrators(student, options())
    subset = quantized(uneven(), activation_quantizer={"type": "Subset"})
    with pytest.raises(OptionsError, match="fold_norms' needs the bounds of each channel.* is DFSQ, which finds none"):
        check_calibrators(subset, options(kind="DFSQ"))
