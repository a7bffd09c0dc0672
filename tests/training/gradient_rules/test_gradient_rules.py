"""How gradients of two losses are joined, on vectors small enough to do it by hand."""

import pytest
import torch

from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.training.gradient_rules.agreement import conflicting_share, cosines
from basicsr.training.gradient_rules.pair import GradientPair, layers_of_parameters
from basicsr.utils.registry import GRADIENT_RULE_REGISTRY
from tests.quant.networks import TinySwin

LAYERS = ["a", "a", "b"]
MAIN = [torch.tensor([3.0, 0.0]), torch.tensor([4.0]), torch.tensor([1.0, 1.0])]


def rule(name, **options):
    return GRADIENT_RULE_REGISTRY.build({"type": name, **options}, where="rule")


@pytest.mark.parametrize(("auxiliary", "gate"), [([-6.0, -8.0], 0.0), ([8.0, -6.0], 0.5), ([0.3, 0.4], 1.0)])
def test_the_gate_at_cosines_of_minus_1_0_and_1(auxiliary, gate):
    main, auxiliary = torch.tensor([3.0, 4.0]), torch.tensor(auxiliary)
    (joined,) = rule("CosineGate").combine([main], [auxiliary], ["a"])
    torch.testing.assert_close(joined, main + gate * auxiliary)


def test_the_extent_of_the_cosine():
    auxiliary = [torch.tensor([3.0, 0.0]), torch.tensor([-4.0]), torch.tensor([-1.0, -1.0])]
    expected = {
        "tensor": [1.0, -1.0, -1.0],
        "layer": [(9 - 16) / 25, (9 - 16) / 25, -1.0],
        "network": [(9 - 16 - 2) / 27] * 3,
    }
    for extent, values in expected.items():
        torch.testing.assert_close(cosines(MAIN, auxiliary, LAYERS, extent), torch.tensor(values))
        joined = rule("CosineGate", extent=extent).combine(MAIN, auxiliary, LAYERS)
        for a, b, got, cosine in zip(MAIN, auxiliary, joined, values, strict=True):
            torch.testing.assert_close(got, a + (cosine + 1) / 2 * b)


def test_gradients_of_zeros_have_the_cosine_0():
    zeros = [torch.zeros_like(a) for a in MAIN]
    assert cosines(MAIN, zeros, LAYERS, "tensor").tolist() == [0.0] * 3
    assert cosines(zeros, zeros, LAYERS, "network").tolist() == [0.0] * 3


def test_the_plain_sum_and_the_signs():
    main, auxiliary = torch.tensor([1.0, -1.0, 2.0, 0.0]), torch.tensor([0.5, 0.5, -0.5, 0.5])
    assert rule("Sum").combine([main], [auxiliary], ["a"])[0].tolist() == [1.5, -0.5, 1.5, 0.5]
    assert rule("SignGate").combine([main], [auxiliary], ["a"])[0].tolist() == [1.5, -1.0, 2.0, 0.0]
    assert float(conflicting_share([main], [auxiliary])) == 0.5


def test_a_parameter_belongs_to_the_layer_that_its_quantizer_serves():
    network = TinySwin()
    insert_quantizers(network, "2dquant", 4, 4)
    layers = layers_of_parameters(network)
    block = "layers.0.residual_group.blocks.0"
    assert set(layers) == {name for name, _ in network.named_parameters()}
    assert {name for name, layer in layers.items() if layer == f"{block}.mlp.fc1"} == {
        f"{block}.mlp.fc1.{name}"
        for name in (
            *("weight", "bias"),
            *("weight_quantizer.lower_bound", "weight_quantizer.upper_bound"),
            *("act_quantizer.lower_bound", "act_quantizer.upper_bound"),
        )
    }
    assert layers[f"{block}.attn.qkv.v.act_quantizer.lower_bound"] == f"{block}.attn.qkv"
    assert layers["conv_first.bias"] == "conv_first"


class Three(torch.nn.Module):
    """y = first * second, z = second + third: the main loss is y^2, the auxiliary one second^2."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Parameter(torch.tensor(v)) for v in (2.0, 3.0, 5.0))


@pytest.fixture
def network():
    return Three()


def test_a_pair_by_hand(network):
    pair = GradientPair(network)
    for _ in range(2):  # two parts of a batch
        pair.add((network.first * network.second) ** 2, network.second**2, [1, 2])
    # main: d/dfirst = 2 * 2 * 9 = 36, d/dsecond = 2 * 4 * 3 = 24; auxiliary: d/dsecond = 6; twice
    assert [g and float(g) for g in pair.main] == [72.0, 48.0, None]
    assert [g and float(g) for g in pair.auxiliary] == [None, 12.0, None]
    assert [[float(g) for g in part] for part in pair.common()[:2]] == [[48.0], [12.0]] and pair.common()[2] == [""]
    pair.hand_over(rule("CosineGate"))
    assert [p.grad and float(p.grad) for p in network.parameters()] == [72.0, 60.0, None]
    pair.hand_over(None)
    assert [p.grad and float(p.grad) for p in network.parameters()] == [72.0, 48.0, None]


def test_what_the_auxiliary_loss_alone_reaches_is_handed_over_as_it_is(network):
    pair = GradientPair(network)
    pair.add(network.first**2, network.third**2, [0, 1, 2])
    pair.hand_over(rule("CosineGate"))
    assert [p.grad and float(p.grad) for p in network.parameters()] == [4.0, None, 10.0]
    pair.clear()
    assert pair.main == pair.auxiliary == [None] * 3
