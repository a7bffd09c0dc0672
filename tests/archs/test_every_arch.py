"""What every registered architecture must do; a new one is tested without writing a test."""

from copy import deepcopy

import pytest
import torch

from basicsr.archs import build_network
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.signature import options_of

# options that make a network small, wherever a constructor has them
SMALL = {
    "embed_dim": 12, "depths": [2], "num_heads": [2], "num_feat": 8, "num_block": 2, "num_layer": 2, "num_grow_ch": 8,
    "num_group": 2, "squeeze_factor": 4,
}  # fmt: skip


def small_options(name):
    known = options_of(ARCH_REGISTRY.get(name))
    return {"type": name, **{key: value for key, value in SMALL.items() if key in known}}


@pytest.fixture(params=ARCH_REGISTRY.names())
def options(request):
    return small_options(request.param)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shape_range_and_backward(options, scale):
    network = build_network({**options, "upscale": scale})
    assert network.scale == scale and network.size_multiple >= 1
    h, w = 2 * network.size_multiple, 3 * network.size_multiple
    output = network(torch.rand(2, 3, h, w))
    assert output.shape == (2, 3, scale * h, scale * w) and torch.isfinite(output).all()
    output.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_state_dict_and_copies(options):
    network, other = build_network(options).eval(), build_network(options).eval()
    x = torch.rand(1, 3, network.size_multiple, network.size_multiple)
    with torch.no_grad():
        assert torch.equal(deepcopy(network)(x), network(x))
        other.load_state_dict(network.state_dict(), strict=True)
        assert torch.equal(other(x), network(x))
        twice = torch.cat([x, x.flip(-1)])
        assert torch.allclose(network(twice)[1:], network(x.flip(-1)), atol=1e-5)


def test_feature_layers_are_modules(options):
    network = build_network(options)
    assert network.feature_layers
    for name in network.feature_layers:
        assert network.get_submodule(name) is not None


def test_reconstruction_blocks_are_modules_in_the_order_of_execution(options):
    network = build_network(options).eval()
    seen = []
    for name in network.reconstruction_blocks:
        network.get_submodule(name).register_forward_hook(lambda _m, _x, _y, name=name: seen.append(name))
    network(torch.rand(1, 3, network.size_multiple, network.size_multiple))
    assert seen and tuple(seen) == network.reconstruction_blocks


def test_building_does_not_change_the_options(options):
    before = deepcopy(options)
    build_network(options)
    assert options == before


def test_unknown_option_names_its_path():
    with pytest.raises(OptionsError, match="'network_g:embed_dims'. Did you mean 'embed_dim'"):
        build_network({"type": "SwinIR", "embed_dims": 60})
