"""The twin of SwinIR for graphs of any size computes what SwinIR does, and has no size in it."""

import pytest
import torch

from basicsr.archs import build_network
from tests import tiny


def swinir():
    torch.manual_seed(3)
    network = build_network({"type": "SwinIR", "upscale": 2, **tiny.NETWORK}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


# one window, a row and a column of windows, windows of all kinds, several images
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 3, 8, 24), (1, 3, 24, 8), (1, 3, 24, 40), (2, 3, 16, 32)])
def test_it_computes_the_same(shape):
    network = swinir()
    x = torch.rand(shape)
    with torch.no_grad():
        torch.testing.assert_close(network.for_any_size()(x), network(x), rtol=1e-5, atol=1e-5)


def test_hooked_products_see_the_same():
    network = swinir()
    x = torch.rand(1, 3, 24, 16)
    twin = network.for_any_size()
    for name in ("layers.0.residual_group.blocks.1.attn.qk", "layers.0.residual_group.blocks.1.attn.av"):
        ours, theirs = inputs_of(network, name, x), inputs_of(twin, name, x)
        for first, second in zip(ours, theirs, strict=True):
            assert first.shape == second.shape
            # shifted windows have another order
            first, second = first.flatten().sort().values, second.flatten().sort().values
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def inputs_of(network, name, x):
    seen = []
    hook = network.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    with torch.no_grad():
        network(x)
    hook.remove()
    return seen


def test_it_shares_the_parameters_and_leaves_the_network_alone():
    network = swinir()
    before = dict(network.named_modules())
    twin = network.for_any_size()
    assert dict(network.named_modules()) == before
    assert {id(p) for p in twin.parameters()} == {id(p) for p in network.parameters()}
    assert twin.state_dict().keys() == network.state_dict().keys()


@pytest.mark.slow
def test_its_graph_holds_for_other_sizes():
    height, width = (8 * torch.export.Dim(name, min=1, max=512) for name in ("height", "width"))
    network = swinir()
    twin = network.for_any_size()
    with torch.no_grad():
        program = torch.export.export(twin, (torch.rand(1, 3, 16, 24),), dynamic_shapes=({2: height, 3: width},))
        x = torch.rand(1, 3, 32, 16)
        torch.testing.assert_close(program.module()(x), network(x), rtol=1e-5, atol=1e-5)
