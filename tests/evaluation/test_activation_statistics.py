"""What activations.json says of the inputs of quantizers: counts, bounds and errors, on values worked out here."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.evaluation.activation_statistics import BINS, activation_statistics
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = build_network({"type": "EDSR", "upscale": 2, "num_feat": 4, "num_block": 2}).eval()
    insert_quantizers(network, "body", w_bits=2, a_bits=2)
    for _, quantizer in named_quantizers(network):
        quantizer.set_bounds(-0.25, 0.5)
    return network


def inputs_of(network, x):
    """Return the inputs of the activation quantizers without quantization."""
    found = {}
    hooks = []
    for name, quantizer in named_quantizers(network, "activation"):
        hooks.append(
            quantizer.register_forward_pre_hook(lambda _m, inputs, name=name: found.update({name: inputs[0].detach()}))
        )
    quantizers = [quantizer for _, quantizer in named_quantizers(network)]
    for quantizer in quantizers:
        quantizer.bypass = True
    with torch.no_grad():
        network(x)
    for quantizer in quantizers:
        quantizer.bypass = False
    for hook in hooks:
        hook.remove()
    return found


def test_counts_bounds_and_errors_are_those_of_the_inputs(network):
    lq = torch.rand(3, 12, 16)
    content = activation_statistics(network, [{"lq": lq, "name": "one"}], "official")
    inputs = inputs_of(network, lq[None])
    assert content["pictures"] == ["one"] and [one["name"] for one in content["quantizers"]] == list(inputs)
    for one in content["quantizers"]:
        x = inputs[one["name"]]
        step = 0.75 / 3
        quantized = ((x.clamp(-0.25, 0.5) + 0.25) / step).round() * step - 0.25
        assert one["error"] == pytest.approx(float((x - quantized).square().sum() / x.square().sum()), rel=1e-3)
        assert one["bounds"] == [-0.25, 0.5] and (one["bits"], one["type"], one["per_channel"]) == (2, "Affine", False)
        histogram = content["histograms"][one["name"]]
        assert histogram["range"] == pytest.approx([float(x.min()), float(x.max())], rel=1e-4)
        assert sum(histogram["full_precision"]) == x.numel() and len(histogram["full_precision"]) == BINS
        assert 0 < sum(histogram["quantized"]) <= x.numel()


def test_only_the_middle_of_the_first_pictures_is_looked_at(network):
    pictures = [{"lq": torch.rand(3, 100, 60), "name": name} for name in "abc"]
    content = activation_statistics(network, pictures, "official")
    assert content["pictures"] == ["a", "b"]
    counts = {sum(one["full_precision"]) for one in content["histograms"].values()}
    assert counts == {2 * 48 * 48 * 4}


def test_an_input_that_is_constant_has_a_range(network):
    for name, parameter in network.named_parameters():
        if name.endswith(("weight", "bias")):
            nn.init.zeros_(parameter)
    content = activation_statistics(network, [{"lq": torch.rand(3, 8, 8), "name": "one"}], "official")
    assert all(one["error"] == 0 for one in content["quantizers"])
    assert {sum(one["full_precision"]) for one in content["histograms"].values()} == {8 * 8 * 4}


def test_the_network_is_left_as_it_was(network):
    lq = torch.rand(3, 8, 8)
    with torch.no_grad():
        before = network(lq[None])
        activation_statistics(network, [{"lq": lq, "name": "one"}], "official")
        assert torch.equal(network(lq[None]), before)
    assert not any(quantizer._forward_hooks or quantizer.bypass for _, quantizer in named_quantizers(network))
