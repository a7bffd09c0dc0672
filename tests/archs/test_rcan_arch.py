"""RCAN: the layout of BasicSR, its arithmetic restated, its coverage, and what its weights tell."""

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs.base import detect_options
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import OptionsError

TINY = {"num_feat": 6, "num_group": 2, "num_block": 1, "squeeze_factor": 3}
MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)


def restated(weights, x, scale, res_scale):
    """The network by its formulas (files of BasicSR): convolutions by name, gates from means over the image, long and short skips."""

    def conv(name, value):
        weight = weights[f"{name}.weight"]
        return F.conv2d(value, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def block(name, value):
        branch = conv(f"{name}.rcab.2", conv(f"{name}.rcab.0", value).relu())
        means = branch.mean(dim=(2, 3), keepdim=True)
        gate = conv(f"{name}.rcab.3.attention.3", conv(f"{name}.rcab.3.attention.1", means).relu()).sigmoid()
        return value + res_scale * branch * gate

    shallow = feature = conv("conv_first", 255 * (x - MEAN))
    for group in ("body.0", "body.1"):
        feature = feature + conv(f"{group}.conv", block(f"{group}.residual_group.0", feature))
    feature = shallow + conv("conv_after_body", feature)
    for name, factor in {2: [("0", 2)], 3: [("0", 3)], 4: [("0", 2), ("2", 2)]}[scale]:
        feature = F.pixel_shuffle(conv(f"upsample.{name}", feature), factor)
    return conv("conv_last", feature) / 255 + MEAN


@pytest.mark.parametrize(("scale", "res_scale"), [(2, 1.0), (3, 0.1), (4, 1.0)])
def test_the_output_is_that_of_the_formulas(scale, res_scale):
    torch.manual_seed(scale)
    network, x = RCAN(**TINY, upscale=scale, res_scale=res_scale).eval(), torch.rand(2, 3, 5, 7)
    with torch.no_grad():
        assert torch.allclose(network(x), restated(network.state_dict(), x, scale, res_scale), atol=1e-5)


def test_names_and_numbers_are_those_of_basicsr():
    with torch.device("meta"):
        network, of_paper = RCAN(), RCAN(num_block=20)
    block = ("rcab.0", "rcab.2", "rcab.3.attention.1", "rcab.3.attention.3")
    names = ["conv_first"]
    for group in range(10):
        names += [f"body.{group}.residual_group.{i}.{layer}" for i in range(16) for layer in block]
        names += [f"body.{group}.conv"]
    names += ["conv_after_body", "upsample.0", "upsample.2", "conv_last"]
    assert list(network.state_dict()) == [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    assert sum(parameter.numel() for parameter in of_paper.parameters()) == 15_592_355
    assert len(of_paper.reconstruction_blocks) == 200 and len(of_paper.feature_layers) == 10


@pytest.mark.parametrize(
    "options",
    [
        {"upscale": 2},
        {"upscale": 3, "num_block": 2},
        {"upscale": 4, "num_feat": 10, "squeeze_factor": 5, "num_group": 3},
    ],
)
def test_options_are_found_in_shapes(options):
    weights = RCAN(**{**TINY, **options}).state_dict()
    assert detect_options(RCAN, weights) == {"num_in_ch": 3, "num_out_ch": 3, **TINY, **options}
    assert detect_options(EDSR, weights) is None
    assert detect_options(RCAN, EDSR(num_feat=6, num_block=2, upscale=options["upscale"]).state_dict()) is None


@pytest.mark.parametrize(
    ("coverage", "layers"),
    [
        ("body", ("residual_group.0.rcab.0", "residual_group.0.rcab.2", "conv")),
        ("body_and_attention", ("residual_group.0.rcab.0", "residual_group.0.rcab.2",
                                "residual_group.0.rcab.3.attention.1", "residual_group.0.rcab.3.attention.3", "conv")),
    ],
)  # fmt: skip
def test_coverage(coverage, layers):
    network = RCAN(**TINY, upscale=2)
    insert_quantizers(network, coverage, 4, 4)
    found = [name.removesuffix(".act_quantizer") for name, _ in named_quantizers(network, "activation")]
    assert found == [f"body.{group}.{layer}" for group in (0, 1) for layer in layers]


def test_the_attention_of_a_network_without_one_cannot_be_covered():
    with pytest.raises(QuantizationError, match="body_and_attention"):
        insert_quantizers(EDSR(num_feat=6, num_block=1, upscale=2), "body_and_attention", 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_out_ch": 1}, r"RCAN takes the mean .* num_out_ch \(1\)"),
        ({"squeeze_factor": 65}, r"squeeze_factor \(65\) leaves none of the 64 channels .* at most 64"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(OptionsError, match=message):
        RCAN(**options)
