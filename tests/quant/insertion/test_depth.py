"""Networks of fewer blocks within one network: which blocks are kept, and what is left of the others."""

import copy

import pytest
import torch

from basicsr.archs import build_network
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.depth import blocks_beyond, leave_out, left_out, scaled_blocks, take_in
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.spec import QuantizationError
from tests import tiny

RULES = {
    "EDSR": [CoverageRule("body.*.conv?", "QConv2d"), CoverageRule("body.*.add", "QScaledResidualAdd", a_bits=32)],
    "SwinIR": [CoverageRule("*.mlp.fc1", "QLinear"), CoverageRule("layers.*.add", "QScaledResidualAdd", a_bits=32)],
}


def network_of(kind, factors=(), **options):
    torch.manual_seed(1)
    network = build_network({"type": kind, "upscale": 2, **tiny.NETWORKS[kind], **options}).eval()
    insert_quantizers(network, RULES[kind], 4, 4)
    for add, factor in zip(scaled_blocks(network).values(), factors, strict=False):
        with torch.no_grad():
            add.shortcut.fill_(factor)
    return network


@pytest.mark.parametrize(
    ("factors", "depth", "beyond"),
    [
        ((1.0, 0.5, 2.0), 1.0, []),
        ((1.0, 0.5, 2.0), 0.5, ["body.2"]),  # 1.5 blocks are 2
        ((1.0, 0.5, 2.0), 0.25, ["body.0", "body.2"]),
        ((1.0, 1.0, 1.0), 0.25, ["body.0", "body.1"]),  # of equal ones the later is kept
    ],
)
def test_blocks_with_the_smallest_factors_are_kept(factors, depth, beyond):
    assert blocks_beyond(network_of("EDSR", factors, num_block=3), depth, "depth") == beyond


@pytest.mark.parametrize(("kind", "blocks"), [("EDSR", "body"), ("SwinIR", "layers")])
def test_a_block_that_is_left_out_gives_its_scaled_input_and_computes_nothing(kind, blocks):
    network, x = network_of(kind, (0.5, 3.0)), torch.rand(1, 3, 16, 16)
    inputs, outputs, computed = [], [], []
    left, kept = network.get_submodule(f"{blocks}.1"), network.get_submodule(f"{blocks}.0")

    def record(_module, given, output):
        inputs.append(given[0])
        outputs.append(output)

    left.register_forward_hook(record)
    for block in (left, kept):
        inner = block.conv1 if kind == "EDSR" else block.conv
        inner.register_forward_hook(lambda *_, block=block: computed.append(block))
    with bypass_quantizers(network), torch.no_grad():
        whole = network(x)
        computed.clear()
        with left_out(network, [f"{blocks}.1"]):
            shallow = network(x)
        assert computed == [kept] and torch.equal(outputs[-1], 3.0 * inputs[-1])
        assert torch.equal(network(x), whole) and not torch.equal(shallow, whole)


def test_a_copy_has_blocks_of_its_own_and_no_tensor_changes():
    network, x = network_of("EDSR"), torch.rand(1, 3, 8, 8)
    keys = list(network.state_dict())
    leave_out(network, ["body.0"])
    twin = copy.deepcopy(network)
    with bypass_quantizers(network), bypass_quantizers(twin), torch.no_grad():
        before = network(x)
        assert torch.equal(twin(x), before)
        twin.body[0].add.shortcut.fill_(2.0)
        assert not torch.equal(twin(x), before) and torch.equal(network(x), before)
    assert list(network.state_dict()) == keys
    take_in(network)
    assert "forward" not in vars(network.body[0]) and "forward" in vars(twin.body[0])


def test_a_network_without_learned_factors_has_one_depth():
    network = build_network({"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]})
    with pytest.raises(QuantizationError, match=r"Option 'train:depths' leaves out blocks .* EDSR has none in this"):
        blocks_beyond(network, 0.5, "train:depths")
