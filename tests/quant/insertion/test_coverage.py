"""The presets on the real networks: which convolutions they quantize, and how many quantizers that makes."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers

SMALL_RDN = {"type": "RDN", "num_block": 4, "num_layer": 6, "num_grow_ch": 32}
CONFIGURATION_A = {"type": "RDN", "num_block": 20, "num_layer": 6, "num_grow_ch": 32}


def build(options):
    with torch.device("meta"):
        return build_network(options)


def bits_of(network):
    return {name: quantizer.spec.bits for name, quantizer in named_quantizers(network)}


@pytest.mark.parametrize(
    ("options", "convolutions"),
    [
        ({"type": "EDSR"}, 32),
        ({"type": "EDSR", "num_feat": 256, "num_block": 32, "upscale": 2}, 64),
        ({"type": "RDN"}, 16 * (8 + 1)),
        (CONFIGURATION_A, 20 * (6 + 1)),
        (SMALL_RDN, 4 * (6 + 1)),
    ],
)
def test_body_quantizes_the_blocks_and_nothing_else(options, convolutions):
    network = build(options)
    inside = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(("body.", "RDBs."))
    ]
    quantization_map = insert_quantizers(network, "body", 4, 3)
    assert [entry.name for entry in quantization_map.modules] == inside and len(inside) == convolutions
    assert len(bits_of(network)) == 2 * convolutions
    assert (
        bits_of(network)[f"{inside[0]}.weight_quantizer"] == 4 and bits_of(network)[f"{inside[0]}.act_quantizer"] == 3
    )
    assert set(bits_of(network).values()) == {3, 4}


@pytest.mark.parametrize(
    ("options", "convolutions", "ends"),
    [
        ({"type": "EDSR"}, 32 + 5, ("conv_first", "conv_last")),
        ({"type": "EDSR", "upscale": 2}, 32 + 4, ("conv_first", "conv_last")),
        ({"type": "RDN"}, 16 * 9 + 7, ("SFENet1", "UPNet.4")),
        ({"type": "RDN", "upscale": 3}, 16 * 9 + 6, ("SFENet1", "UPNet.2")),
    ],
)
def test_full_quantizes_every_convolution_with_8_bits_at_both_ends(options, convolutions, ends):
    network = build(options)
    insert_quantizers(network, "full", 2, 2)
    assert not any(type(module) is nn.Conv2d for module in network.modules())
    bits = bits_of(network)
    assert len(bits) == 2 * convolutions
    assert {name.rpartition(".")[0] for name, b in bits.items() if b == 8} == set(ends)
    assert sum(b == 8 for b in bits.values()) == 4 and sum(b == 2 for b in bits.values()) == 2 * convolutions - 4
