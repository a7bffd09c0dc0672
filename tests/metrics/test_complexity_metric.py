"""Counts of parameters, operations and bytes; the arithmetic of the 2DQuant paper."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.metrics.complexity_metric import measure_complexity, published_swinir_macs, reduction
from basicsr.metrics.layer_costs import count_layers
from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import CoverageRule, insert_quantizers, named_quantizers
from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.cost import Cost
from basicsr.utils.errors import OptionsError
from tests import tiny


class MatMul(nn.Module):
    def forward(self, a, b):
        return a @ b


class Plain(nn.Module):
    size_multiple, scale = 2, 1

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, groups=3)
        self.split, self.linear, self.product = nn.Linear(6, 12), nn.Linear(12, 6), MatMul()

    def forward(self, x):
        tokens = self.linear(self.split(self.conv(x).flatten(2).transpose(1, 2)))
        heads = tokens.unflatten(1, (-1, 4))  # n, groups of 4 tokens, 4, 6
        return self.product(heads, heads.transpose(-2, -1))


class Network(nn.Module):
    """One layer for every pixel, by default."""

    size_multiple, scale = 1, 1

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def small():
    """Return a network whose layers have different bits: split 2/4 and 4/8, linear 4/8, product 4/3."""
    network = Plain()
    rules = [
        CoverageRule("split", "QSplitLinear", split=("p", "q")),
        CoverageRule("linear", "QLinear", w_bits=4, a_bits=8),
        CoverageRule("product", "QMatMul", a_bits=4),
    ]
    overrides = [
        {"match": "split.p", "w_bits": 2, "a_bits": 4},
        {"match": "split.q", "w_bits": 4, "a_bits": 8},
        {"match": "product.b_quantizer", "a_bits": 3},
    ]
    insert_quantizers(network, rules, 4, 4, overrides=overrides)
    for _, quantizer in named_quantizers(network):
        quantizer.load_calibration(Bounds(torch.tensor(-1.0), torch.tensor(1.0)))
    return network


def costs_of(network, size):
    costs, not_counted = count_layers(network, size)
    assert not not_counted
    return costs


def test_layers_of_a_small_network():
    layers = {cost.name: cost for cost in costs_of(small(), (19, 20))}  # counts as 20 x 20
    pixels = 400
    assert {name: cost.macs for name, cost in layers.items()} == {
        "conv": pixels * 6 * 9,
        "split": pixels * 6 * 12,
        "linear": pixels * 12 * 6,
        "product": pixels * 4 * 6,
    }
    assert [cost.quantized for cost in layers.values()] == [False, True, True, True]
    assert [cost.bit_product for cost in layers.values()] == [1024, (8 + 32) / 2, 32, 12]
    assert layers["split"].weight_bits == 3 and layers["conv"].weight_bits == 32


def test_bytes_and_bit_operations():
    found = measure_complexity(small(), lr_size=(2, 2))
    bounds = 8 * 2
    weights = {"conv": 54, "split": 72, "linear": 72}
    biases = 6 + 12 + 6
    assert found["parameters"] == sum(weights.values()) + biases
    assert found["bytes"] == (54 + biases + bounds) * 4 + 72 * 3 / 8 + 72 * 4 / 8
    assert found["macs"] == 4 * (54 + 72 + 72 + 24) and found["quantized_macs"] == 4 * (72 + 72 + 24)
    assert found["bit_operations"] == 4 * (54 * 1024 + 72 * 20 + 72 * 32 + 24 * 12)


@pytest.mark.slow
def test_counting_does_not_wait_for_torchs_compiler():
    """The first operation that a dispatch mode sees makes torch import its compiler, unless the mode declines."""
    program = (
        "import sys; from basicsr.archs import build_network; from basicsr.metrics.complexity_metric import measure_complexity; "
        "measure_complexity(build_network({'type': 'EDSR', 'num_feat': 8, 'num_block': 1})); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tiny.ROOT)
    assert done.stdout.split() == ["False"]


def test_hooks_are_removed():
    network = small()
    count_layers(network, (8, 8))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.slow
def test_arithmetic_of_the_2dquant_paper():
    costs = costs_of(build_network({"type": "SwinIR"}), (128, 128))
    pixels = 128 * 128
    macs = Counter()
    for cost in costs:
        macs[cost.kind] += cost.macs
    assert macs["linear"] == 691_200 * pixels and macs["matmul"] == 184_320 * pixels
    quantized, other = published_swinir_macs(costs, 4)
    assert round(quantized / 1e9, 2) == 14.34
    assert (quantized + other) / 1e9 == pytest.approx(16.74, abs=0.01)
    assert [round(reduction(quantized, other, bits), 2) for bits in (4, 3, 2)] == [3.99, 4.47, 5.08]
    weights = sum(cost.weights for cost in costs if cost.kind == "linear")
    assert weights == 691_200
    # compression, with the 897 K parameters that the SwinIR paper gives
    assert [round(reduction(weights, 897_000 - weights, bits), 2) for bits in (4, 3, 2)] == [3.07, 3.31, 3.6]


def test_edsr_baseline_by_hand():
    network = build_network({"type": "EDSR"})
    costs = {cost.name: cost for cost in costs_of(network, (180, 320))}
    pixels = 180 * 320
    inside = 64 * 64 * 9  # a convolution from 64 to 64 channels
    assert len(costs) == 37 and all(cost.kind == "conv" for cost in costs.values())
    assert costs["conv_first"].macs == 3 * 64 * 9 * pixels
    assert costs["body.7.conv2"].macs == costs["conv_after_body"].macs == inside * pixels
    assert costs["upsample.0"].macs == 4 * inside * pixels  # 256 channels, before the first pixel shuffle
    assert costs["upsample.2"].macs == 4 * inside * 4 * pixels
    assert costs["conv_last"].macs == 64 * 3 * 9 * 16 * pixels
    whole = measure_complexity(network, lr_size=(180, 320))
    assert whole["macs"] == (3 * 64 * 9 + 53 * inside + 64 * 3 * 9 * 16) * pixels == 114_230_476_800
    assert whole["parameters"] == 1_517_571 and whole["bytes"] == 4 * 1_517_571
    assert whole["quantized_macs"] == 0 and whole["bit_operations"] == 1024 * whole["macs"]


def test_rdn_by_hand():
    network = build_network({"type": "RDN", "num_block": 4, "num_layer": 6, "num_grow_ch": 32, "upscale": 2})
    whole, pixels = measure_complexity(network, lr_size=(100, 101)), 100 * 101
    dense = sum((64 + 32 * i) * 32 * 9 for i in range(6)) + (64 + 6 * 32) * 64
    shallow_and_fusion = 3 * 64 * 9 + 64 * 64 * 9 + 4 * 64 * 64 + 64 * 64 * 9
    assert whole["macs"] == (4 * dense + shallow_and_fusion + 64 * 128 * 9 + 32 * 3 * 9 * 4) * pixels
    assert whole["bytes"] == 4 * whole["parameters"] == 4 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "quantizers", "weights", "macs"),
    [
        ({"type": "EDSR"}, 64, 32 * 64 * 64 * 9, 32 * 64 * 64 * 9),
        (
            {"type": "RDN", "num_block": 1, "num_layer": 2, "num_grow_ch": 16},
            6,
            64 * 16 * 9 + 80 * 16 * 9 + 96 * 64,
            64 * 16 * 9 + 80 * 16 * 9 + 96 * 64,
        ),
    ],
)
def test_bodies_of_4_bits(options, quantizers, weights, macs):
    network = build_network(options)
    before = measure_complexity(network)
    insert_quantizers(network, "body", 4, 4)
    for _, quantizer in named_quantizers(network):
        quantizer.load_calibration(Bounds(torch.tensor(-1.0), torch.tensor(1.0)))
    after, pixels = measure_complexity(network), 128 * 128
    assert after["parameters"] == before["parameters"] and after["macs"] == before["macs"]
    assert after["bytes"] == before["bytes"] - weights * 28 / 8 + quantizers * 2 * 4
    assert after["quantized_macs"] == macs * pixels
    assert after["bit_operations"] == (before["macs"] - macs * pixels) * 1024 + macs * pixels * 16


def test_counts_do_not_depend_on_the_size_of_the_probe():
    network = build_network({"type": "SwinIR", "depths": [2], "num_heads": [2], "embed_dim": 12, "window_size": 4})
    small, large = (measure_complexity(network, lr_size=size) for size in ((16, 16), (48, 64)))
    assert large["macs"] == 12 * small["macs"] and large["bytes"] == small["bytes"] == 4 * small["parameters"]


class Wide(nn.Module):
    """A layer for every pixel, in a network that takes no image of less than 30 x 30 pixels."""

    size_multiple, scale = 1, 1

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return torch.nn.functional.max_pool2d(self.conv(x), 30, 1)


def test_a_network_for_large_images_alone_is_counted_on_one_of_the_size_asked_for():
    (cost,), not_counted = count_layers(Wide(), (40, 50))
    assert (cost.name, cost.macs, not_counted) == ("conv", 40 * 50 * 3 * 4, [])
    with pytest.raises(
        OptionsError,
        match=r"of the network Wide cannot be counted, for it fails on an image of 20 x 20 pixels: .*size_multiple",
    ):
        count_layers(Wide(), (20, 20))


def test_points_of_a_quantizer_count_like_bounds():
    network = small()
    before = measure_complexity(network, lr_size=(4, 4))
    network.linear.act_quantizer.register_buffer("points", torch.zeros(12, 16))
    network.linear.act_quantizer.register_buffer("word_indices", torch.zeros(12, 16, 4, dtype=torch.uint8))
    after = measure_complexity(network, lr_size=(4, 4))
    assert after == before | {"bytes": before["bytes"] + 12 * 16 * 4}


def test_products_that_no_layer_states_are_counted_in_full_precision():
    class Attention(nn.Module):  # over all pixels, by functions: quadratic in their number
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1, bias=False, batch_first=True)
            self.down = nn.ConvTranspose2d(3, 5, 2, 2)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            weights = (tokens @ tokens.transpose(1, 2)).softmax(-1)
            return self.down((weights @ tokens).transpose(1, 2).view_as(x))

    costs, not_counted = count_layers(Network(Attention()), (12, 10))
    pixels = 120
    assert {cost.name: cost.macs for cost in costs} == {
        "layer": 2 * 3 * pixels**2,
        "layer.down": pixels * 3 * 5 * 4,
    }
    assert all(cost.kind == "other" and cost.bit_product == 1024 and not cost.quantized for cost in costs)
    assert not_counted == ["layer.attention", "layer.attention.out_proj"]  # never called


def test_what_does_not_grow_with_the_picture_is_not_scaled():
    squeeze = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1))
    whole = {cost.name: cost.macs for cost in costs_of(Network(squeeze), (30, 50))}
    assert whole == {"layer.0": 1500 * 24, "layer.2": 32}


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factors = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return x * self.factors


class StatedScale(Scale):
    def own_macs(self, _inputs, output):
        return output.numel()


class OwnConv2d(nn.Conv2d):
    """Another class than the one that the rule knows."""

    def forward(self, x):
        return super().forward(super().forward(x))


def test_modules_that_no_rule_knows_are_named(caplog):
    layers = nn.Sequential(Scale(), nn.PReLU(), StatedScale(), OwnConv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1))
    network = Network(layers)
    network.unused = nn.Linear(2, 2)
    found = measure_complexity(network, lr_size=(4, 4))
    assert found["not_counted"] == ["layer.0", "layer.1", "unused"]
    assert found["macs"] == 16 * (3 + 2 * 9 + 9)
    assert "layer.0, layer.1, unused" in caplog.text and "own_macs" in caplog.text


def test_a_layer_from_outside_states_its_cost():
    class QHalf(QModule):
        source_type = "Conv2d"

        @classmethod
        def slots(cls, source, split, /):
            return []

        def cost(self, inputs, output, /):
            assert inputs[0].shape == output.shape
            return Cost("half", output.numel() // 2, self.weight.numel(), ((2, 4), (6, 8)))

        def forward(self, x):
            return torch.nn.functional.conv2d(x, self.weight)

    network = Network(QHalf(nn.Conv2d(3, 3, 1, bias=False), {}))
    (cost,) = costs_of(network, (5, 8))
    assert (cost.kind, cost.macs, cost.weights, cost.weight_bits, cost.bit_product) == ("half", 60, 9, 4, 28)
    whole = measure_complexity(network, lr_size=(5, 8))
    assert whole["quantized_macs"] == 60 and whole["bytes"] == 9 * 4 / 8 and "not_counted" not in whole
