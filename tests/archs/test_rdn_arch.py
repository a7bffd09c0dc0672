"""RDN against the outputs and key layout of the public implementation."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from basicsr.archs import build_network
from basicsr.archs.rdn_arch import RDN
from basicsr.evaluation.inference import upscale
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.weights import load_network_weights

TINY = {"num_feat": 12, "num_block": 2, "num_layer": 3, "num_grow_ch": 8}
IMAGES = {"num_in_ch": 3, "num_out_ch": 3}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_outputs_of_the_reference(reference, scale):
    io = {key: torch.from_numpy(array) for key, array in np.load(reference / "networks/rdn_tiny_io.npz").items()}
    network = RDN(**TINY, upscale=scale).eval()
    file = reference / f"networks/rdn_tiny_x{scale}.safetensors"
    load_network_weights(network, load_file(file), file)
    for pad in ("official", "mirror", "reflect"):
        output = upscale(network, io["x"], pad=pad)
        assert output.shape == io[f"y_x{scale}"].shape
        assert (output - io[f"y_x{scale}"]).abs().max() < 1e-4


def test_keys_are_the_public_ones_in_order(reference):
    public = json.loads((reference / "keys_rdn_b_x4.json").read_text())
    network = build_network({"type": "RDN"})
    assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(public["keys"].items())
    assert sum(p.numel() for p in network.parameters()) == public["num_parameters"] == 22_271_107
    assert len(network.state_dict()) == public["num_tensors"] == 302


@pytest.mark.parametrize(
    ("options", "convolutions"),
    [
        ({"num_block": 20, "num_layer": 6, "num_grow_ch": 32, "upscale": 2}, 20 * 7 + 6),  # configuration A
        ({"num_block": 4, "num_layer": 6, "num_grow_ch": 32, "upscale": 4}, 4 * 7 + 7),
        ({"num_block": 1, "num_layer": 1, "num_grow_ch": 1, "num_feat": 2, "upscale": 3}, 2 + 6),
        ({"num_block": 2, "num_layer": 2, "num_grow_ch": 4, "num_feat": 6, "upscale": 8}, 2 * 3 + 8),
    ],
)
def test_options_are_found_in_shapes(options, convolutions):
    with torch.device("meta"):
        state_dict = RDN(**options).state_dict()
    assert len(state_dict) == 2 * convolutions
    assert RDN.options_from_state_dict(state_dict) == {**IMAGES, "num_feat": 64, **options}


def parameters_by_formula(feat, blocks, layers, growth, upscale):
    def conv(inputs, outputs, side=3):
        return outputs * (inputs * side**2 + 1)

    dense = sum(conv(feat + i * growth, growth) for i in range(layers))
    block = dense + conv(feat + layers * growth, feat, 1)
    ends = conv(3, feat) + conv(feat, feat) + conv(blocks * feat, feat, 1) + conv(feat, feat) + conv(growth, 3)
    steps = {2: [(feat, 4)], 3: [(feat, 9)], 4: [(feat, 4), (growth, 4)]}[upscale]
    return ends + blocks * block + sum(conv(inputs, growth * factor) for inputs, factor in steps)


@pytest.mark.parametrize("upscale", [2, 3, 4])
@pytest.mark.parametrize(("blocks", "layers", "growth"), [(20, 6, 32), (16, 8, 64), (4, 6, 32)])
def test_number_of_parameters(blocks, layers, growth, upscale):
    with torch.device("meta"):
        network = RDN(num_block=blocks, num_layer=layers, num_grow_ch=growth, upscale=upscale)
    expected = parameters_by_formula(64, blocks, layers, growth, upscale)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_dense_layers_see_everything_before_them():
    network = RDN(**TINY, upscale=2).eval()
    block, x = network.RDBs[0], torch.rand(2, 12, 5, 6)
    seen = []
    for layer in block.convs:
        layer.conv[0].register_forward_hook(lambda _m, inputs, output: seen.append((inputs[0], output.relu())))
    output = block(x)
    features = [x]
    for joined, new in seen:
        assert torch.equal(joined, torch.cat(features, dim=1))
        features.append(new)
    assert torch.allclose(output, block.LFF(torch.cat(features, dim=1)) + x, atol=1e-6)


def test_range_of_the_image():
    torch.manual_seed(0)
    network, in_255 = RDN(**TINY).eval(), RDN(**TINY, img_range=255.0).eval()
    in_255.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 4, 5)
    with torch.no_grad():
        assert torch.allclose(in_255(x), network(255 * x) / 255, atol=1e-5)


def test_layout_of_memory_does_not_matter():
    network, x = RDN(**TINY).eval(), torch.rand(2, 3, 6, 7)
    with torch.no_grad():
        output = network(x)
        by_channels = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert output.is_contiguous(memory_format=torch.channels_last) and torch.allclose(output, by_channels, atol=1e-5)


def test_mismatches_are_explained():
    def problem(**options):
        with pytest.raises(CheckpointError) as error:
            load_network_weights(RDN(**TINY), RDN(**{**TINY, **options}).state_dict(), "file.pth")
        return str(error.value)

    assert "the file holds a network with upscale 2, the options ask for upscale 4" in problem(upscale=2)
    assert "the file holds a network with upscale 3, the options ask for upscale 4" in problem(upscale=3)
    assert "with num_block 4, the options ask for num_block 2" in problem(num_block=4)
    text = problem(num_layer=2, num_grow_ch=4)
    assert "num_layer 2, num_grow_ch 4, the options ask for num_layer 3, num_grow_ch 8" in text
    with pytest.raises(CheckpointError, match="belong to another architecture"):
        load_network_weights(RDN(**TINY), build_network({"type": "EDSR", "num_feat": 8}).state_dict(), "edsr.pth")


def test_options_out_of_range():
    with pytest.raises(OptionsError, match="'network_g:upscale' has the value 6: Input should be 2, 3, 4 or 8"):
        build_network({"type": "RDN", "upscale": 6})
    with pytest.raises(OptionsError, match="'network_g:num_layer' has the value 0"):
        build_network({"type": "RDN", "num_layer": 0})
