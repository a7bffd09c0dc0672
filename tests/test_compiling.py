"""torch.compile takes every architecture, quantized network and quantizer as one graph: nothing breaks it, and nothing is left to Python."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.utils.registry import ARCH_REGISTRY, QUANTIZER_REGISTRY
from tests import tiny
from tests.quant.quantizers import test_every_quantizer as quantizers

pytestmark = pytest.mark.slow
NETWORKS = tiny.NETWORKS | {"SwinIR": {"embed_dim": 12, "depths": [2], "num_heads": [2]}}
"""One group with a layer of each kind, for graphs of SwinIR take the longest."""
FIRST = {name: spec for name, spec in reversed(quantizers.CASES)}


def graph_of(module):
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, backend="eager")


@pytest.mark.parametrize("architecture", NETWORKS)
def test_networks_are_one_graph_with_quantizers_and_without(architecture):
    network = build_network({"type": architecture, "upscale": 2, **NETWORKS[architecture]}).eval()
    lr = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(graph_of(network)(lr), network(lr), rtol=0, atol=1e-5)
    insert_quantizers(network, "2dquant" if architecture == "SwinIR" else "body", 4, 4)
    for _, quantizer in named_quantizers(network):
        quantizer.mark_calibrated()
    expected = network(lr)
    compiled = graph_of(network.train())(lr)
    torch.testing.assert_close(compiled, expected, rtol=0, atol=1e-5)
    compiled.sum().backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
    if architecture in ("SwinIR", "EDSR"):
        with torch.no_grad():
            torch.testing.assert_close(graph_of(network.eval())(lr), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FIRST)
def test_quantizers_are_one_graph(name):
    quantizer = quantizers.build(name, *FIRST[name])
    x = torch.rand(2, 5, 6, 6)
    torch.testing.assert_close(graph_of(quantizer)(x), quantizer(x))


def test_all_that_is_registered_is_among_them():
    assert set(NETWORKS) == set(ARCH_REGISTRY.names())
    assert set(FIRST) == set(QUANTIZER_REGISTRY.names())


class Reads(torch.nn.Module):
    def forward(self, x):
        return x / 2 if x.max() > 1 else x


def test_a_read_by_the_host_breaks_a_graph():
    with pytest.raises(torch._dynamo.exc.Unsupported):
        graph_of(Reads())(torch.rand(2))
