"""MSRResNet: the layout of BasicSR, its arithmetic restated, and what its weights tell."""

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs.base import detect_options
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.msrresnet_arch import MSRResNet
from basicsr.utils.errors import OptionsError

TINY = {"num_feat": 6, "num_block": 2}


def restated(weights, x, scale):
    """The network by its formulas (files of BasicSR): convolutions by name, slopes of 0.1, a bilinear skip."""

    def conv(name, value):
        return F.conv2d(value, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def leaky(value):
        return torch.where(value > 0, value, 0.1 * value)

    feature = leaky(conv("conv_first", x))
    for block in ("body.0", "body.1"):
        feature = feature + conv(f"{block}.conv2", conv(f"{block}.conv1", feature).relu())
    steps = {2: [("upconv1", 2)], 3: [("upconv1", 3)], 4: [("upconv1", 2), ("upconv2", 2)]}[scale]
    for name, factor in steps:
        feature = leaky(F.pixel_shuffle(conv(name, feature), factor))
    size = [side * scale for side in x.shape[-2:]]
    return conv("conv_last", leaky(conv("conv_hr", feature))) + F.interpolate(x, size, mode="bilinear")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_output_is_that_of_the_formulas(scale):
    network = MSRResNet(**TINY, upscale=scale).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.rand(2, 3, 5, 7)
    with torch.no_grad():
        assert torch.allclose(network(x), restated(network.state_dict(), x, scale), atol=1e-5)


def test_without_its_last_convolution_it_enlarges_bilinearly():
    network = MSRResNet(**TINY, upscale=2)
    torch.nn.init.zeros_(network.conv_last.weight)
    output = network(torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2))
    assert torch.allclose(output[0, :, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(3, 4))


def test_names_and_numbers_are_those_of_basicsr():
    network = MSRResNet()
    convolutions = ["conv_first", *(f"body.{i}.conv{k}" for i in range(16) for k in (1, 2))]
    convolutions += ["upconv1", "upconv2", "conv_hr", "conv_last"]
    assert list(network.state_dict()) == [f"{name}.{part}" for name in convolutions for part in ("weight", "bias")]
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_517_571


def test_random_weights_are_a_tenth_as_large_as_usual():
    weight = MSRResNet(num_feat=64, num_block=1).body[0].conv1.weight
    assert float(weight.detach().std()) == pytest.approx(0.1 * (2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("options", [{"upscale": 2}, {"upscale": 3}, {"upscale": 4, "num_feat": 10, "num_block": 3}])
def test_options_are_found_in_shapes(options):
    weights = MSRResNet(**{**TINY, **options}).state_dict()
    assert detect_options(MSRResNet, weights) == {"num_in_ch": 3, "num_out_ch": 3, **TINY, **options}
    assert detect_options(EDSR, weights) is None
    assert detect_options(MSRResNet, EDSR(**TINY, upscale=options["upscale"]).state_dict()) is None


def test_channels_that_contradict_each_other():
    with pytest.raises(OptionsError, match=r"num_in_ch \(3\) and num_out_ch \(1\)"):
        MSRResNet(num_out_ch=1)
