"""Sums of skip connections: what their quantizers see and give, in cases worked by hand, and where there are none to quantize."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.arch_util import ResidualAdd
from basicsr.networks.starting import load_weights_of
from basicsr.quant.insertion.coverage import SKIP_BITS, CoverageRule
from basicsr.quant.insertion.insert import apply_quantization_map, insert_quantizers, named_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.observe.capture import bypass_quantizers, observe_quantizer_inputs
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QMODULE_REGISTRY
from tests import tiny
from tests.quant.networks import TinySwin

KINDS = {"EDSR": {"res_scale": 0.1}, "MSRResNet": {}, "RCAN": {"res_scale": 0.1}, "RDN": {}}


def build(kind, bounds, scale=1.0, channels=1):
    quantizers = {}
    for slot, (lower, upper) in bounds.items():
        quantizers[slot] = AffineQuantizer(QuantSpec(2))
        quantizers[slot].set_bounds(lower, upper)
        quantizers[slot].mark_calibrated()
    for slot in QMODULE_REGISTRY.get(kind).slots(ResidualAdd(channels, scale), ()):
        quantizers.setdefault(slot.name, nn.Identity())
    return QMODULE_REGISTRY.get(kind)(ResidualAdd(channels, scale), quantizers)


def network_of(kind):
    torch.manual_seed(1)
    return build_network({"type": kind, "upscale": 2, **tiny.NETWORKS[kind], **KINDS.get(kind, {})}).eval()


SKIP, BRANCH = torch.tensor([[[[0.4, 1.6, -5.0]]]]), torch.tensor([[[[14.0, -6.0, 90.0]]]])


def test_summands_have_grids_of_their_own_and_the_branch_is_scaled_before():
    """Values 0, 1, 2, 3 for the skip and -3, -1, 1, 3 for a tenth of the branch: 1.4, -0.6, 9."""
    module = build("QResidualAdd", {"skip_quantizer": (0.0, 3.0), "branch_quantizer": (-3.0, 3.0)}, scale=0.1)
    assert module(SKIP, BRANCH).flatten().tolist() == [0 + 1, 2 - 1, 0 + 3]


def test_a_summand_may_stay_in_full_precision():
    module = build("QResidualAdd", {"skip_quantizer": (0.0, 3.0)}, scale=0.5)
    assert module(SKIP, BRANCH).flatten().tolist() == [0 + 7.0, 2 - 3.0, 0 + 45.0]


def test_both_summands_may_share_a_grid():
    """Values -6, -2, 2, 6 for both; halves of the branch are 7, -3, 45."""
    module = build("QSharedResidualAdd", {"act_quantizer": (-6.0, 6.0)}, scale=0.5)
    assert module(SKIP, BRANCH).flatten().tolist() == [2 + 6, 2 - 2, -6 + 6]


def test_a_skip_may_be_scaled_by_what_is_learned():
    module = build("QScaledResidualAdd", {}, scale=0.5)
    assert torch.equal(module(SKIP, BRANCH), SKIP + 0.5 * BRANCH)
    with torch.no_grad():
        module.shortcut.fill_(2.0)
    assert torch.equal(module(SKIP, BRANCH), 2 * SKIP + 0.5 * BRANCH)
    module(SKIP, BRANCH).sum().backward()
    assert float(module.shortcut.grad) == pytest.approx(float(SKIP.sum()))
    for twin in (module.integer_twin(), module.runtime_form(integer_linear=False)):
        torch.testing.assert_close(twin(SKIP, BRANCH), 2 * SKIP + 0.5 * BRANCH)


def test_a_scaled_sum_stays_although_nothing_of_it_is_quantized():
    network = network_of("EDSR")
    rules = [CoverageRule("body.*.conv1", "QConv2d"), CoverageRule("body.*.add", "QScaledResidualAdd", a_bits=32)]
    quantization_map = insert_quantizers(network, rules, 4, 4)
    assert [entry.name for entry in quantization_map.modules if not entry.quantizers] == ["body.0.add", "body.1.add"]
    assert "body.1.add.shortcut" in network.state_dict()
    twin = network_of("EDSR")
    apply_quantization_map(twin, QuantizationMap.from_dict(quantization_map.as_dict()))
    assert twin.state_dict().keys() == network.state_dict().keys()
    with pytest.raises(QuantizationError, match="nothing is quantized"):
        insert_quantizers(network_of("EDSR"), rules[1:], 4, 4)


def test_a_learned_factor_is_not_lost_where_another_network_starts():
    rules = [CoverageRule("body.*.conv1", "QConv2d"), CoverageRule("body.*.add", "QScaledResidualAdd", a_bits=32)]
    with_factor, other, plain = (network_of("EDSR") for _ in range(3))
    for network, coverage in ((with_factor, rules), (other, rules), (plain, rules[:1])):
        insert_quantizers(network, coverage, 4, 4)
    with torch.no_grad():
        with_factor.body[1].add.shortcut.fill_(1.5)
    load_weights_of(other, with_factor)
    assert [float(block.add.shortcut.detach()) for block in other.body] == [1.0, 1.5]
    load_weights_of(other, plain)
    with pytest.raises(QuantizationError, match="has learned 'body.0.add.shortcut', which has no place in this run"):
        load_weights_of(plain, with_factor)


@pytest.mark.parametrize("kind", ["QResidualAdd", "QSharedResidualAdd"])
def test_quantizers_see_both_summands_and_bypassed_ones_leave_the_bits(kind):
    names = {"QResidualAdd": ("skip_quantizer", "branch_quantizer"), "QSharedResidualAdd": ("act_quantizer",)}[kind]
    module = build(kind, dict.fromkeys(names, (0.0, 3.0)), scale=0.3)
    skip, branch = torch.randn(2, 1, 5, 7), torch.randn(2, 1, 5, 7)
    seen = {}
    with observe_quantizer_inputs(module, {name: lambda x, n=name: seen.update({n: x}) for name in names}):
        assert torch.equal(module(skip, branch), torch.add(skip, branch, alpha=0.3))
    assert torch.equal(torch.cat([seen[name] for name in names]), torch.cat([skip, branch * 0.3]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_with_bypassed_sums_has_the_bits_of_full_precision(kind):
    network, x = network_of(kind), torch.rand(1, 3, 12, 10)
    expected, keys = network(x), list(network.state_dict())
    assert not [key for key in keys if ".add" in key or key.startswith("add")]
    insert_quantizers(network, "body_and_skips", 4, 4)
    with bypass_quantizers(network):
        assert torch.equal(network(x), expected)
    assert set(keys) <= set(network.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_of_body_and_skips(kind):
    blocks = {
        "RCAN": [f"body.{i}{block}" for i in (0, 1) for block in (".residual_group.0", ".residual_group.1", "")],
        "RDN": ["RDBs.0", "RDBs.1"],
    }.get(kind, ["body.0", "body.1"])
    network = network_of(kind)
    insert_quantizers(network, "body_and_skips", 4, 3)
    names = dict(named_quantizers(network, "activation"))
    found = [n for n in names if n.split(".")[-2] == "add"]
    assert found == [f"{block}.add.{slot}_quantizer" for block in blocks for slot in ("skip", "branch")]
    assert {names[n].spec.bits for n in found} == {3}
    assert f"{blocks[0]}.{ {'RDN': 'LFF', 'RCAN': 'rcab.2'}.get(kind, 'conv2') }.act_quantizer" in names


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_of_all_and_skips(kind):
    network = network_of(kind)
    sums = [name for name, module in network.named_modules() if isinstance(module, ResidualAdd)]
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    insert_quantizers(network, "all_and_skips", 4, 4)
    bits = {name: quantizer.spec.bits for name, quantizer in named_quantizers(network)}
    assert "add" in sums and len(sums) == (7 if kind == "RCAN" else 3)
    assert {name for name, b in bits.items() if b == SKIP_BITS} == {f"{name}.act_quantizer" for name in sums}
    assert {name.rpartition(".")[0] for name, b in bits.items() if b == 4} == set(layers)


class NoSums(nn.Module):
    """The names of EDSR, with a sum that is no module."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Module())
        self.body[0].conv1 = nn.Conv2d(3, 3, 3, 1, 1)


@pytest.mark.parametrize(
    ("network", "coverage", "message"),
    [
        (NoSums(), "body_and_skips", "preset 'body_and_skips' asks for .* the network NoSums has none"),
        (TinySwin(), "all_and_skips", "preset 'all_and_skips' asks for .* the network TinySwin has none"),
        (
            TinySwin(),
            [CoverageRule("*.add", "QResidualAdd")],
            r"rule '\*\.add' asks for .* the network TinySwin has none",
        ),
        (network_of("SwinIR"), "body_and_skips", "of those the network SwinIR has only others, such as 'layers.0.add'"),
        (
            network_of("EDSR"),
            [CoverageRule("body.*.sum", "QResidualAdd")],
            "EDSR has only others, such as 'body.0.add'",
        ),
    ],
)
def test_networks_without_such_sums_are_told_so(network, coverage, message):
    with pytest.raises(QuantizationError, match=message) as error:
        insert_quantizers(network, coverage, 4, 4)
    assert "ResidualAdd of basicsr/archs/arch_util.py" in str(error.value)
