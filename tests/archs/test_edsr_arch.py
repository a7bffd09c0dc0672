"""EDSR against the outputs and key layouts of both public implementations."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from basicsr.archs import build_network
from basicsr.archs.edsr_arch import EDSR
from basicsr.evaluation.inference import upscale
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.weights import load_network_weights
from tests.archs.layouts import edsr_pytorch_layout

TINY = {"num_feat": 8, "num_block": 2}
CASES = [("x2", 2, 1.0), ("x2_rs01", 2, 0.1), ("x3", 3, 1.0), ("x4", 4, 1.0)]


def tiny(scale=2, **options):
    torch.manual_seed(scale)
    return EDSR(**TINY, upscale=scale, **options).eval()


@pytest.mark.parametrize("layout", ["edsr_tiny", "edsr_pytorch_tiny"])
@pytest.mark.parametrize(("name", "scale", "res_scale"), CASES)
def test_outputs_of_the_references(reference, layout, name, scale, res_scale):
    io = {key: torch.from_numpy(array) for key, array in np.load(reference / "networks/edsr_tiny_io.npz").items()}
    network = tiny(scale, res_scale=res_scale)
    file = reference / f"networks/{layout}_{name}.safetensors"
    load_network_weights(network, load_file(file), file)
    for pad in ("official", "mirror", "reflect"):
        output = upscale(network, io["x"], pad=pad)
        assert output.shape == io[f"y_{name}"].shape
        assert (output - io[f"y_{name}"]).abs().max() < 1e-4
        assert (255 * output - io[f"y255_{name}"]).abs().max() < 5e-3


@pytest.mark.parametrize("scale", [2, 4])
def test_keys_are_the_official_ones_in_order(reference, scale):
    official = json.loads((reference / f"keys_edsr_baseline_x{scale}.json").read_text())
    network = build_network({"type": "EDSR", **official["config"]})
    assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(official["keys"].items())
    assert sum(p.numel() for p in network.parameters()) == official["num_parameters"]
    assert official["num_parameters"] == {2: 1_369_859, 4: 1_517_571}[scale]


@pytest.mark.parametrize("scale", [2, 4])
def test_keys_of_edsr_pytorch_load_strictly(reference, scale):
    official = json.loads((reference / f"keys_edsr_pytorch_x{scale}.json").read_text())
    network = EDSR(upscale=scale)
    state_dict = edsr_pytorch_layout(network)
    assert {k: list(v.shape) for k, v in state_dict.items()} == official["keys"]
    other = EDSR(upscale=scale)
    load_network_weights(other, state_dict, "official.pt")
    assert all(torch.equal(other.state_dict()[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("scale", "width", "blocks"), [(2, 8, 2), (3, 12, 1), (4, 8, 3), (8, 3, 1)])
def test_options_are_found_in_shapes(scale, width, blocks):
    options = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": width, "num_block": blocks, "upscale": scale}
    network = EDSR(**options)
    assert EDSR.options_from_state_dict(network.state_dict()) == options
    assert EDSR.options_from_state_dict(network.remap_state_dict(edsr_pytorch_layout(network))) == options


def test_large_network():
    with torch.device("meta"):
        network = EDSR(num_feat=256, num_block=32, res_scale=0.1)
    assert sum(p.numel() for p in network.parameters()) == 43_089_923
    assert len(network.reconstruction_blocks) == 32


def test_residual_blocks_are_scaled():
    network = tiny(res_scale=0.1)
    x = torch.rand(1, 8, 5, 6)
    block = network.body[0]
    expected = x + 0.1 * block.conv2(block.conv1(x).relu())
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_grey_images_have_a_grey_mean():
    network = tiny(num_in_ch=1, num_out_ch=1, rgb_mean=(0.5,), img_range=1.0)
    assert network(torch.rand(1, 1, 7, 5)).shape == (1, 1, 14, 10)
    load_network_weights(network, edsr_pytorch_layout(network), "grey.pt")
    with pytest.raises(
        OptionsError, match=r"num_in_ch \(1\), num_out_ch \(3\) and the number of values in rgb_mean \(3\)"
    ):
        EDSR(num_in_ch=1)


def test_layout_of_memory_does_not_matter():
    network, x = tiny(), torch.rand(2, 3, 6, 7)
    with torch.no_grad():
        output = network(x)
        by_channels = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert output.is_contiguous(memory_format=torch.channels_last) and torch.allclose(output, by_channels, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sub_mean.bias": torch.tensor([-0.4488, -0.4371, -0.4040])}, "sub_mean shifts the colours by [-0.4488"),
        ({"add_mean.bias": 255 * torch.tensor([0.469, 0.449, 0.4036])}, "add_mean shifts the colours by [119.595"),
        ({"sub_mean.weight": 2 * torch.eye(3).view(3, 3, 1, 1)}, "with the matrix [2.0, 0.0, 0.0, 0.0, 2.0"),
        ({"sub_mean.bias": torch.zeros(1), "sub_mean.weight": torch.ones(1, 1, 1, 1)}, "shifts the colours by [0.0]"),
    ],
)
def test_another_mean_shift_is_refused(change, message):
    network = tiny()
    with pytest.raises(CheckpointError) as error:
        load_network_weights(network, {**edsr_pytorch_layout(network), **change}, "folder/edsr.pt")
    text = str(error.value)
    assert text.startswith("The weights 'folder/edsr.pt' do not fit the network EDSR: its ") and message in text
    assert "img_range 255 and rgb_mean [0.4488, 0.4371, 0.404]" in text


def test_mean_shift_in_half_precision_or_absent():
    network = tiny()
    state_dict = edsr_pytorch_layout(network)
    load_network_weights(network, {k: v.half().float() for k, v in state_dict.items()}, "half.pt")
    load_network_weights(network, {k: v for k, v in state_dict.items() if "mean" not in k}, "without.pt")


@pytest.mark.parametrize("layout", [lambda network: network.state_dict(), edsr_pytorch_layout])
def test_mismatches_are_explained(layout):
    def problem(source):
        with pytest.raises(CheckpointError) as error:
            load_network_weights(tiny(), layout(source), "file.pth")
        return str(error.value)

    assert "the file holds a network with upscale 4, the options ask for upscale 2" in problem(tiny(4))
    assert "the file holds a network with upscale 3, the options ask for upscale 2" in problem(tiny(3))
    large = EDSR(num_feat=12, num_block=3, upscale=2)
    assert "a network with num_feat 12, num_block 3, the options ask for num_feat 8, num_block 2" in problem(large)
    with pytest.raises(CheckpointError, match="belong to another architecture"):
        load_network_weights(tiny(), build_network({"type": "RDN", "num_block": 1}).state_dict(), "rdn.pth")


def test_scale_factors_that_do_not_exist():
    with pytest.raises(OptionsError, match="'network_g:upscale' has the value 5: Input should be 2, 3, 4 or 8"):
        build_network({"type": "EDSR", "upscale": 5})
