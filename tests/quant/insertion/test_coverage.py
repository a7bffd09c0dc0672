"""The presets on the real networks: which convolutions they quantize, and how many quantizers that makes."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.spec import QuantizationError

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


@pytest.mark.parametrize(
    ("preset", "options"), [("2dquant", {"type": "SwinIR"}), ("body", {"type": "EDSR"}), ("full", SMALL_RDN)]
)
def test_with_32_bits_of_activations_weights_alone_are_quantized(preset, options):
    network, both = build(options), build(options)
    everything = insert_quantizers(both, preset, 3, 3)
    quantization_map = insert_quantizers(network, preset, 3, 32)
    weights = {name: entry.spec.bits for name, entry in everything.quantizers.items() if entry.role == "weight"}
    assert bits_of(network) == weights  # 8 at both ends of `full`, too
    assert {entry.role for entry in quantization_map.quantizers.values()} == {"weight"}
    assert not any(entry.type == "QMatMul" for entry in quantization_map.modules)
    assert quantization_map.activation_ranges == "static"


def test_with_32_bits_of_weights_activations_alone_are_quantized_and_an_override_adds_single_ones():
    network = build({"type": "EDSR"})
    insert_quantizers(
        network, "body", 32, 4, overrides=[{"match": "body.1.*", "w_bits": 6}, {"match": "body.2.*", "a_bits": 32}]
    )
    bits = bits_of(network)
    assert bits["body.0.conv1.act_quantizer"] == 4 and "body.0.conv1.weight_quantizer" not in bits
    assert bits["body.1.conv1.weight_quantizer"] == 6
    assert not any(name.startswith("body.2.") for name in bits)


def test_32_bits_for_everything_leave_nothing():
    with pytest.raises(QuantizationError, match="nothing is quantized. Set w_bits or a_bits to 2 to 8"):
        insert_quantizers(build({"type": "EDSR"}), "body", 32, 32)
