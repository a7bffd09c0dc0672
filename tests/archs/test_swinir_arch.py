"""SwinIR against the reference implementation's outputs and against the plain implementation."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from basicsr.archs.arch_util import MatMul
from basicsr.archs.swinir_arch import SwinIR
from basicsr.archs.window_attention import token_layouts
from basicsr.evaluation.inference import pad_to_multiple, upscale
from basicsr.utils.errors import OptionsError
from tests.archs.plain_swinir import PlainSwinIR

TINY = {"embed_dim": 12, "depths": (2, 3), "num_heads": (2, 3), "img_size": 16}


def seeded(network):
    """Give every parameter a value that matters."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network.eval()


def plain_twin(network, **options):
    plain = PlainSwinIR(network.upscale, **options).eval()
    plain.load_state_dict(network.state_dict())
    return plain


def listen(network):
    """Make every attention product audible, so that the modules are called; return the log of calls."""
    calls = []
    for name, module in network.named_modules():
        if isinstance(module, MatMul):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls


def reference_network(reference, scale):
    state_dict = SwinIR.remap_state_dict(load_file(reference / f"networks/swinir_tiny_x{scale}.safetensors"))
    network = SwinIR(**SwinIR.options_from_state_dict(state_dict)).eval()
    network.load_state_dict(state_dict)
    return network


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_outputs_of_the_reference(reference, scale):
    io = {name: torch.from_numpy(array) for name, array in np.load(reference / "networks/swinir_tiny_io.npz").items()}
    network = reference_network(reference, scale)
    padded = pad_to_multiple(io["x_13x21"], 8, "official")
    assert torch.equal(padded, io["x_13x21_padded"])
    outputs = {
        f"y_x{scale}_16x24": upscale(network, io["x_16x24"], pad="mirror"),
        f"y_x{scale}_13x21_reflect": upscale(network, io["x_13x21"], pad="reflect"),
        f"y_x{scale}_13x21_mirror": upscale(network, io["x_13x21"], pad="official"),
        f"y_x{scale}_16x24_mirror": upscale(network, io["x_16x24"], pad="official"),
    }
    outputs = {name: output for name, output in outputs.items() if name in io}
    assert len(outputs) == 4
    for name, output in outputs.items():
        assert (output - io[name]).abs().max() < 1e-5, name
    with torch.no_grad():
        assert (network(io["x_13x21"]) - io[f"y_x{scale}_13x21_reflect"]).abs().max() < 1e-5


def test_features_of_the_reference(reference):
    io = {name: torch.from_numpy(array) for name, array in np.load(reference / "networks/swinir_tiny_io.npz").items()}
    network = reference_network(reference, 2)
    layouts = token_layouts(16, 24, 8, torch.device("cpu"))
    blocks = network.layers[0].residual_group.blocks
    features = {}
    network.conv_first.register_forward_hook(lambda _, x, y: features.update(conv_first=y))
    network.conv_after_body.register_forward_hook(lambda _, x, y: features.update(body=x[0]))
    network.get_submodule(network.feature_layers[0]).register_forward_hook(lambda _, x, y: features.update(layer0=y))
    for i, block in enumerate(blocks):
        block.register_forward_hook(
            lambda block, _, y, i=i: features.update({f"layer0_block{i}": layouts.reorder(y, block.order, "image")})
        )
    network(io["x_16x24"])
    assert sorted(features) == sorted(name[8:] for name in io if name.startswith("feat_x2_"))
    for name, feature in features.items():
        assert (feature - io[f"feat_x2_{name}"]).abs().max() < 1e-5, name


def test_keys_are_the_official_ones_in_order(reference):
    official = json.loads((reference / "keys_swinir_light_x4.json").read_text())
    expected = [(key, shape) for key, shape in official["keys"].items() if key not in official["buffers"]]
    network = SwinIR()
    assert [(key, list(value.shape)) for key, value in network.state_dict().items()] == expected
    assert sum(p.numel() for p in network.parameters()) == official["num_parameters"] == 929_628


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (1, 1), (3, 50), (19, 9), (24, 24)])
def test_agrees_with_the_plain_network(size):
    network = seeded(SwinIR(upscale=2, **TINY))
    plain = plain_twin(network, **TINY)
    x = torch.rand(2, 3, *size)
    with torch.inference_mode():
        output = network(x)
        # the plain network pads with torch's reflection, which tiny images do not allow
        padded = torch.from_numpy(
            np.pad(x.numpy(), [(0, 0), (0, 0), (0, -size[0] % 8), (0, -size[1] % 8)], mode="reflect")
        )
        expected = plain(padded)[..., : 2 * size[0], : 2 * size[1]]
    assert output.shape == (2, 3, 2 * size[0], 2 * size[1])
    assert (output - expected).abs().max() < 1e-5


@pytest.mark.parametrize("resi_connection", ["1conv", "3conv"])
@pytest.mark.parametrize(
    ("upsampler", "scale"),
    [
        ("pixelshuffledirect", 3),
        ("pixelshuffle", 2),
        ("pixelshuffle", 3),
        ("pixelshuffle", 4),
        ("nearest+conv", 2),
        ("nearest+conv", 4),
    ],
)
def test_every_configuration(upsampler, scale, resi_connection):
    shape = {**TINY, "upsampler": upsampler, "resi_connection": resi_connection, "mlp_ratio": 1.5, "window_size": 4}
    network = seeded(SwinIR(upscale=scale, **shape))
    x = torch.rand(1, 3, 8, 12)
    with torch.inference_mode():
        assert (network(x) - plain_twin(network, **shape)(x)).abs().max() < 1e-5
    found = SwinIR.options_from_state_dict(network.state_dict())
    assert found == {
        **{k: v for k, v in shape.items() if k != "img_size"},
        "upscale": scale,
        "in_chans": 3,
        "qkv_bias": True,
    }
    assert SwinIR(**found).load_state_dict(network.state_dict())


def test_grey_images_other_range_and_no_qkv_bias():
    network = SwinIR(in_chans=1, img_range=255.0, qkv_bias=False, **TINY)
    assert network(torch.rand(1, 1, 9, 8)).shape == (1, 1, 36, 32)
    found = SwinIR.options_from_state_dict(network.state_dict())
    assert found["in_chans"] == 1 and found["qkv_bias"] is False


def test_products_go_through_the_modules_when_somebody_listens():
    network = seeded(SwinIR(upscale=2, **TINY))
    listened = deepcopy(network)
    calls = listen(listened)
    x = torch.rand(2, 3, 16, 24)
    with torch.inference_mode():
        assert (network(x) - listened(x)).abs().max() < 1e-5
    assert len(calls) == 2 * 5 and calls[0].endswith("attn.qk") and calls[1].endswith("attn.av")


def test_q_is_scaled_before_the_product():
    network = seeded(SwinIR(upscale=2, **TINY))
    attention = network.layers[0].residual_group.blocks[0].attn
    seen = []
    attention.qkv.register_forward_hook(lambda _, x, y: seen.append(y))
    attention.qk.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    with torch.no_grad():
        network(torch.rand(1, 3, 8, 8))
    qkv, q, k = seen
    qkv = qkv.view(1, 64, 3, 2, 6)
    assert torch.allclose(q, qkv[:, :, 0].transpose(1, 2) * 6**-0.5)
    assert torch.equal(k, qkv[:, :, 1].permute(0, 2, 3, 1))


def test_gradients_are_those_of_the_plain_network():
    network = seeded(SwinIR(upscale=2, **TINY)).train()
    plain = plain_twin(network, **TINY)
    x = torch.rand(2, 3, 16, 24)
    for each in (network, plain):
        each(x).square().mean().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4), name


def test_nothing_stale_after_weights_change():
    network, other = seeded(SwinIR(upscale=2, **TINY)), SwinIR(upscale=2, **TINY).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        before = other(x)
    other.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(other(x), network(x)) and not torch.equal(other(x), before)
        table = other.layers[0].residual_group.blocks[1].attn.relative_position_bias_table
        table.data.normal_()  # as an average of weights is written, unseen by autograd
        assert not torch.equal(other(x), network(x))
    moved = deepcopy(network).double()
    with torch.inference_mode():
        assert (moved(x.double()) - network(x)).abs().max() < 1e-4


def test_drop_path_drops_only_in_training():
    network = SwinIR(upscale=2, drop_path_rate=0.9, **TINY)
    x = torch.rand(1, 3, 8, 8)
    outputs = [network(x) for _ in range(4)]
    assert any(not torch.equal(outputs[0], output) for output in outputs[1:])
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upscale": 5, "upsampler": "pixelshuffle"}, "no x5 network with the upsampler 'pixelshuffle'"),
        ({"upscale": 3, "upsampler": "nearest+conv"}, "no x3 network"),
        ({"depths": (2, 2), "num_heads": (2,)}, r"depths \[2, 2\] with num_heads \[2\]"),
        ({"embed_dim": 50}, "embed_dim 50"),
        ({"window_size": 7}, "window_size of SwinIR is 7"),
        ({"img_size": 8}, "img_size 8"),
        ({"drop_path_rate": 1.0}, "drop_path_rate of SwinIR is 1.0"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(OptionsError, match=message):
        SwinIR(**options)
