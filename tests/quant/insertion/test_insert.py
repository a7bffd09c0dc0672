"""Coverage presets, rules and overrides; replaying a quantization map."""

import json

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.coverage import PRESETS, CoverageRule
from basicsr.quant.insertion.insert import (
    apply_quantization_map,
    insert_quantizers,
    named_quantizers,
    quantized_weights,
    quantizer_parameters,
    quantizers_with_same_input,
)
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import QMODULE_REGISTRY
from tests.quant.helpers import set_min_max_bounds
from tests.quant.networks import TinyEdsr, TinyRdn, TinySwin

BLOCK = "layers.0.residual_group.blocks.0"


def bits_of(network):
    return {name: quantizer.spec.bits for name, quantizer in named_quantizers(network)}


def test_2dquant_covers_a_swin_layer_with_16_quantizers():
    network = TinySwin()
    insert_quantizers(network, "2dquant", 4, 3)
    names = [name.removeprefix(BLOCK + ".") for name in bits_of(network) if name.startswith(BLOCK)]
    projections = [f"attn.qkv.{part}.{kind}" for part in "qkv" for kind in ("weight_quantizer", "act_quantizer")]
    assert sorted(names) == sorted(
        [
            *projections,
            *(f"attn.{product}.{factor}_quantizer" for product in ("qk", "av") for factor in "ab"),
            *(f"{linear}.{k}_quantizer" for linear in ("attn.proj", "mlp.fc1", "mlp.fc2") for k in ("weight", "act")),
        ]
    )
    assert len(bits_of(network)) == 4 * 16
    assert {b for name, b in bits_of(network).items() if name.endswith("weight_quantizer")} == {4}
    assert {b for name, b in bits_of(network).items() if not name.endswith("weight_quantizer")} == {3}
    assert not any(isinstance(m, nn.Linear) for m in network.modules())
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 3


def test_2dquant_covers_swinir_light_with_384_quantizers():
    network = TinySwin(dim=12, heads=2, groups=4, depth=6)
    quantization_map = insert_quantizers(network, "2dquant", 2, 2)
    assert len(quantization_map.quantizers) == len(dict(named_quantizers(network))) == 384
    assert len(quantizer_parameters(network)) == 768
    of_weights, of_activations = (quantizer_parameters(network, role) for role in ("weight", "activation"))
    assert not {id(p) for p in of_weights} & {id(p) for p in of_activations}
    assert len(of_weights) == 2 * len(quantized_weights(network)) == 768 - len(of_activations)


def test_a_quantized_swinir_light_has_the_official_keys(reference):
    official = json.loads((reference / "keys_swinir_light_x4.json").read_text())["keys"]
    network = TinySwin(dim=60, heads=6, groups=4, depth=6)
    insert_quantizers(network, "2dquant", 4, 4)
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    quantized = [key for key in official if ".attn.qkv." in key or ".attn.proj." in key or ".mlp." in key]
    assert len(quantized) == 24 * 4 * 2
    assert all(shapes[key] == official[key] for key in quantized)


def test_official_keys_stay_and_weights_are_shared():
    network = TinySwin()
    before = dict(network.named_parameters())
    keys = list(network.state_dict())
    insert_quantizers(network, "full", 4, 4)
    after = dict(network.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert [key for key in network.state_dict() if "quantizer" not in key] == keys
    assert network.load_state_dict(TinySwin().state_dict(), strict=False).unexpected_keys == []


@pytest.mark.parametrize(
    ("network", "modules"),
    [
        (TinyEdsr(), [f"body.{i}.conv{j}" for i in range(3) for j in (1, 2)]),
        (TinyRdn(), [f"RDBs.{i}.{m}" for i in range(2) for m in (*(f"convs.{j}.conv.0" for j in range(3)), "LFF")]),
    ],
)
def test_body_covers_the_residual_and_dense_blocks(network, modules):
    quantization_map = insert_quantizers(network, "body", 4, 4)
    assert [entry.name for entry in quantization_map.modules] == modules
    assert set(bits_of(network).values()) == {4}


@pytest.mark.parametrize(
    ("network", "first", "last"),
    [
        (TinySwin(), "conv_first", "upsample.0"),
        (TinyEdsr(), "conv_first", "conv_last"),
        (TinyRdn(), "SFENet1", "UPNet.0"),
    ],
)
def test_full_covers_everything_with_8_bits_at_both_ends(network, first, last):
    layers = (nn.Linear, nn.Conv2d)
    expected = [n for n, m in network.named_modules() if isinstance(m, layers) or type(m).__name__ == "MatMul"]
    quantization_map = insert_quantizers(network, "full", 3, 2)
    assert [entry.name for entry in quantization_map.modules] == expected
    assert not any(isinstance(m, layers) for m in network.modules())
    eight = {f"{end}.{kind}_quantizer" for end in (first, last) for kind in ("weight", "act")}
    assert {name for name, bits in bits_of(network).items() if bits == 8} == eight


def test_a_quantized_network_runs_and_is_close_at_8_bits():
    network, x = TinySwin().eval(), torch.rand(1, 3, 6, 5)
    expected = network(x)
    insert_quantizers(network, "full", 8, 8, weight_granularity="per_channel")
    set_min_max_bounds(network, x)
    torch.testing.assert_close(network(x), expected, atol=0.03, rtol=0)


def test_weights_of_the_quantizers():
    network = TinySwin()
    insert_quantizers(network, "2dquant", 4, 4)
    weights = quantized_weights(network)
    assert weights.keys() == {name for name in bits_of(network) if name.endswith("weight_quantizer")}
    k = weights[f"{BLOCK}.attn.qkv.k.weight_quantizer"]
    assert torch.equal(k, network.get_submodule(f"{BLOCK}.attn.qkv").weight[12:24])
    assert not k.requires_grad


def test_quantizers_by_role():
    network = TinySwin()
    insert_quantizers(network, "2dquant", 4, 4, weight_granularity="per_channel")
    weights, activations = (dict(named_quantizers(network, role)) for role in ("weight", "activation"))
    assert list(weights) == list(quantized_weights(network)) and len(weights) == 4 * 6
    assert [n for n in dict(named_quantizers(network)) if n not in weights] == list(activations)


def test_overrides_reach_modules_parts_and_single_quantizers_in_order():
    network = TinySwin()
    overrides = [
        {"match": "layers.1.*", "w_bits": 8, "a_bits": 8},
        {"match": "*.attn.qkv.v", "w_bits": 6, "a_bits": None},
        {"match": f"{BLOCK}.mlp.fc2.act_quantizer", "a_bits": 5},
        {"match": "layers.1.residual_group.blocks.1.attn.av", "a_bits": 7},
    ]
    insert_quantizers(network, "2dquant", 4, 3, overrides=overrides, exclude=["*.attn.proj"])
    bits = bits_of(network)
    assert bits[f"{BLOCK}.mlp.fc2.act_quantizer"] == 5
    assert bits[f"{BLOCK}.mlp.fc2.weight_quantizer"] == 4
    assert bits[f"{BLOCK}.attn.qkv.v.weight_quantizer"] == 6
    assert bits[f"{BLOCK}.attn.qkv.v.act_quantizer"] == 3
    assert bits["layers.1.residual_group.blocks.0.attn.qkv.v.weight_quantizer"] == 6
    assert bits["layers.1.residual_group.blocks.0.attn.qkv.k.weight_quantizer"] == 8
    assert bits["layers.1.residual_group.blocks.1.attn.av.a_quantizer"] == 7
    assert not any("proj" in name for name in bits)
    assert type(network.get_submodule(f"{BLOCK}.attn.proj")) is nn.Linear


def test_a_single_quantizer_can_be_left_out_and_the_map_replays_it():
    network, x = TinyEdsr().eval(), torch.rand(1, 3, 6, 5)
    arguments = {"exclude": ["body.*.conv1.act_quantizer"], "overrides": [{"match": "body.0.*", "a_bits": 8}]}
    quantization_map = insert_quantizers(network, "body", 4, 4, **arguments)
    expected = {f"body.{i}.{slot}" for i in range(3) for slot in ("conv1.weight_quantizer", "conv2.weight_quantizer")}
    expected |= {f"body.{i}.conv2.act_quantizer" for i in range(3)}
    assert set(bits_of(network)) == set(quantization_map.quantizers) == expected
    assert quantization_map.modules[0].full_precision == ("act_quantizer",)
    lines = [" ".join(line.split()) for line in quantization_map.format_table().splitlines()]
    assert "body.*.conv1 QConv2d 3 4 - 3" in lines

    given = {}
    network.body[1].conv1.act_quantizer.register_forward_hook(
        lambda _module, inputs, output: given.update({0: (inputs[0], output)})
    )
    set_min_max_bounds(network, x)
    network(x)
    assert given[0][0] is given[0][1]

    fresh = TinyEdsr().eval()
    apply_quantization_map(fresh, QuantizationMap.from_dict(json.loads(json.dumps(quantization_map.as_dict()))))
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(x), network(x))


def test_a_weight_and_a_part_can_be_left_out():
    network = TinySwin().eval()
    insert_quantizers(network, "2dquant", 4, 4, exclude=["*.fc1.weight_quantizer", "*.attn.qkv.v", "*.k.act_quantizer"])
    names = {name.removeprefix(BLOCK + ".") for name in bits_of(network) if name.startswith(BLOCK)}
    assert "mlp.fc1.act_quantizer" in names and "mlp.fc1.weight_quantizer" not in names
    qkv = {name for name in names if "qkv" in name}
    assert qkv == {f"attn.qkv.{slot}" for slot in ("q.weight_quantizer", "q.act_quantizer", "k.weight_quantizer")}
    assert not quantizers_with_same_input(network)
    assert set(quantized_weights(network)) <= set(bits_of(network))
    set_min_max_bounds(network, torch.rand(1, 3, 6, 5))
    network(torch.rand(1, 3, 6, 5))


def test_a_module_of_which_all_quantizers_are_left_out_is_not_replaced():
    network = TinyEdsr()
    insert_quantizers(network, "body", 4, 4, exclude=["body.0.conv1.act_quantizer", "body.0.conv1.weight_quantizer"])
    assert type(network.body[0].conv1) is nn.Conv2d


def test_maps_written_before_quantizers_could_be_left_out_are_read():
    data = insert_quantizers(TinyEdsr(), "body", 4, 4).as_dict()
    for module in data["modules"]:
        del module["full_precision"]
    assert QuantizationMap.from_dict(data).modules[0].full_precision == ()


@pytest.mark.parametrize(("role", "quantizer"), [("weight", "PAMS"), ("activation", "PAMSWeight")])
def test_a_quantizer_for_the_other_role_is_refused(role, quantizer):
    symmetry = {f"{role}_symmetric": True}
    other = "activation" if role == "weight" else "weight"
    with pytest.raises(QuantizationError, match=f"A {quantizer} is for the quantization of {other}s only"):
        insert_quantizers(TinyEdsr(), "body", 4, 4, **{f"{role}_quantizer": {"type": quantizer}}, **symmetry)


def test_quantizers_that_ask_for_the_channels_of_their_tensors_get_them():
    network = TinySwin()
    insert_quantizers(network, "full", 4, 4, activation_quantizer={"type": "QuantSR"})
    shapes = {name: tuple(q.shift.shape) for name, q in named_quantizers(network) if hasattr(q, "shift")}
    assert shapes["conv_first.act_quantizer"] == (3,) and shapes[f"{BLOCK}.mlp.fc2.act_quantizer"] == (24,)
    assert f"{BLOCK}.attn.qk.a_quantizer" in bits_of(network) and f"{BLOCK}.attn.qk.a_quantizer" not in shapes
    assert not any(name.endswith("weight_quantizer") for name in shapes)


def test_rules_in_place_of_a_preset():
    network = TinySwin()
    rules = [CoverageRule("conv_first", "QConv2d", w_bits=8, a_bits=8), CoverageRule("*", "QConv2d")]
    insert_quantizers(network, rules, 4, 4, weight_symmetric=True, activation_symmetric=True)
    assert bits_of(network)["conv_first.weight_quantizer"] == 8
    assert bits_of(network)["upsample.0.act_quantizer"] == 4
    assert all(quantizer.spec.symmetric for _, quantizer in named_quantizers(network))


def test_a_map_survives_json_and_puts_the_same_quantizers_into_a_fresh_network():
    network, x = TinySwin().eval(), torch.rand(1, 3, 6, 5)
    overrides = [{"match": "*.fc1", "w_bits": 8}]
    quantization_map = insert_quantizers(
        network, "2dquant", 4, 3, overrides=overrides, weight_granularity="per_channel"
    )
    set_min_max_bounds(network, x)
    restored = QuantizationMap.from_dict(json.loads(json.dumps(quantization_map.as_dict())))
    assert restored == quantization_map

    fresh = TinySwin().eval()
    apply_quantization_map(fresh, restored)
    assert bits_of(fresh) == bits_of(network)
    assert list(fresh.state_dict()) == list(network.state_dict())
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(x), network(x))


def test_a_map_says_whether_ranges_are_dynamic():
    for kind, ranges in (("Affine", "static"), ("Subset", "dynamic")):
        quantization_map = insert_quantizers(TinySwin(), "2dquant", 4, 4, activation_quantizer={"type": kind})
        assert quantization_map.as_dict()["activation_ranges"] == ranges
        assert QuantizationMap.from_dict(quantization_map.as_dict()) == quantization_map


def test_subset_quantizers_are_per_channel_in_linear_layers_and_per_tensor_in_products():
    network = TinySwin()
    arguments = {"activation_quantizer": {"type": "Subset"}, "activation_granularity": "per_channel"}
    insert_quantizers(network, "2dquant", 4, 3, **arguments)
    quantizers = dict(named_quantizers(network))
    assert quantizers[f"{BLOCK}.mlp.fc2.act_quantizer"].points.shape == (24, 8)
    assert quantizers[f"{BLOCK}.attn.qkv.q.act_quantizer"].spec.channel_axis == -1
    assert quantizers[f"{BLOCK}.attn.qk.b_quantizer"].points.shape == (8,)


def test_quantizers_know_their_names():
    network = TinySwin()
    insert_quantizers(network, "2dquant", 4, 4)
    assert all(quantizer.name == name for name, quantizer in named_quantizers(network))
    with pytest.raises(
        QuantizationError, match=r"'layers\.0\.residual_group\.blocks\.0\.attn\.qkv\.q\.act_quantizer' has no"
    ):
        network(torch.rand(1, 3, 6, 5))


def test_the_table_has_a_line_for_each_kind_of_module():
    network = TinySwin()
    overrides = [{"match": "layers.1.*.fc1", "a_bits": 8}, {"match": "*.qkv.q", "w_bits": 2}]
    table = insert_quantizers(network, "2dquant", 4, 3, overrides=overrides).format_table()
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert lines[0] == "modules type count weight bits activation bits quantizers"
    assert "layers.*.residual_group.blocks.*.attn.qkv QSplitLinear (q, k, v) 4 2/4 3 24" in lines
    assert "layers.*.residual_group.blocks.*.attn.qk QMatMul 4 - 3 8" in lines
    assert "layers.1.residual_group.blocks.*.mlp.fc1 QLinear 2 4 8 4" in lines
    assert lines[-1] == "total 24 64"
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coverage": "2dqant"}, "no coverage preset '2dqant'. Did you mean '2dquant'"),
        ({"w_bits": 9}, "Cannot use w_bits: bits is 9"),
        ({"a_bits": 1}, "Cannot use a_bits: bits is 1"),
        ({"a_bits": True}, "Cannot use a_bits: bits is True"),
        ({"coverage": "body"}, "'body', meant for EDSR, MSRResNet, RCAN and RDN, matches no layer of TinySwin"),
        ({"coverage": [CoverageRule("*.attn.kqv", "QLinear")]}, r"'\*\.attn\.kqv' matches no module"),
        ({"coverage": [CoverageRule("conv_frist", "QConv2d")]}, "'conv_frist' matches no.*mean 'conv_first'"),
        ({"coverage": [CoverageRule("*.attn.qkv", "QConv2d")]}, "QConv2d, which replaces a Conv2d, .* is a Linear"),
        ({"coverage": []}, "list of rules matches no layer"),
        ({"overrides": [{"match": "*.fc3", "w_bits": 8}]}, r"override '\*\.fc3' matches nothing"),
        ({"overrides": [{"match": "*.attn.qk", "w_bits": 8}]}, r"'\*\.attn\.qk' matches nothing that it could change"),
        ({"overrides": [{"match": "*.fc1", "w_bits": 12}]}, r"w_bits of the override '\*\.fc1': bits is 12"),
        ({"overrides": [{"match": "*.fc1"}]}, "changes nothing: give w_bits"),
        ({"exclude": ["*.fc3"]}, r"exclusion '\*\.fc3' matches no selected module"),
        ({"exclude": ["*"]}, "leaves no module"),
        ({"exclude": ["*.conv1.act_quantizer"]}, r"matches no selected module and no quantizer of one"),
        ({"exclude": ["*.fc1.act_quantizer"] * 2}, r"'\*\.fc1\.act_quantizer' matches no selected module"),
        (
            {"exclude": ["*.fc1.act_quantizer"], "overrides": [{"match": "*.fc1.act_quantizer", "a_bits": 8}]},
            r"'\*\.fc1\.act_quantizer' matches nothing that it could change",
        ),
        (
            {"weight_quantizer": {"type": "Subset"}},
            "A Subset is for the quantization of activations only.*weight_quantizer",
        ),
        (
            {"activation_quantizer": {"type": "Subset"}, "activation_symmetric": True},
            "set 'quantization:activation_symmetric' to false",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_the_network_alone(arguments, message):
    network = TinySwin()
    with pytest.raises(QuantizationError, match=message):
        insert_quantizers(network, **{"coverage": "2dquant", "w_bits": 4, "a_bits": 4, **arguments})
    assert not dict(named_quantizers(network))


def test_a_preset_of_which_a_part_is_missing_is_refused():
    network = TinySwin()
    for group in network.layers:
        for block in group.residual_group.blocks:
            block.attn.av = nn.Identity()
    with pytest.raises(QuantizationError, match=r"'\*\.attn\.av' .* QMatMul.*is a Identity.*'2dquant' is meant for"):
        insert_quantizers(network, "2dquant", 4, 4)


def test_rules_check_their_bits():
    with pytest.raises(QuantizationError, match="a_bits of the coverage rule 'x': bits is 0"):
        CoverageRule("x", "QLinear", a_bits=0)


@pytest.mark.parametrize(
    "options", [{"weight_quantizer": {"type": "Afine"}}, {"activation_quantizer": {"type": "Affine", "size": 3}}]
)
def test_quantizers_are_checked_by_the_registry(options):
    network = TinySwin()
    with pytest.raises(OptionsError, match="Did you mean 'Affine'|Unknown option 'activation_quantizer:size'"):
        insert_quantizers(network, "2dquant", 4, 4, **options)
    with pytest.raises(OptionsError, match="'QLinaer', which does not exist. Did you mean 'QLinear'"):
        insert_quantizers(network, [CoverageRule("*", "QLinaer")], 4, 4)


def test_a_network_is_quantized_once():
    network = TinyEdsr()
    quantization_map = insert_quantizers(network, "body", 4, 4)
    with pytest.raises(QuantizationError, match=r"has quantizers already, such as 'body\.0\.conv1"):
        insert_quantizers(network, "full", 4, 4)
    with pytest.raises(QuantizationError, match="already"):
        apply_quantization_map(network, quantization_map)


def test_a_module_in_two_places_is_refused():
    network = TinySwin()
    attention = network.get_submodule(f"{BLOCK}.attn")
    attention.av = attention.qk
    with pytest.raises(QuantizationError, match=r"attn\.qk' sits in the network in more than one place"):
        insert_quantizers(network, [CoverageRule("*.qk", "QMatMul")], 4, 4)


def test_a_map_that_does_not_fit_is_refused():
    data = insert_quantizers(TinyEdsr(), "body", 4, 4).as_dict()
    with pytest.raises(QuantizationError, match=r"names the module 'body\.0\.conv1', which the network does not have"):
        apply_quantization_map(TinySwin(), QuantizationMap.from_dict(data))
    wrong_type = json.loads(json.dumps(data).replace("QConv2d", "QLinear"))
    with pytest.raises(QuantizationError, match="is a Conv2d and not a Linear"):
        apply_quantization_map(TinyEdsr(), QuantizationMap.from_dict(wrong_type))
    del data["modules"][0]["quantizers"]["act_quantizer"]
    with pytest.raises(QuantizationError, match=r"gives 'body\.0\.conv1' the quantizers weight_quantizer, but"):
        apply_quantization_map(TinyEdsr(), QuantizationMap.from_dict(data))


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"format_version": 1},
        {"format_version": 1, "modules": [{"name": "x"}]},
        {"format_version": 1, "modules": [{"name": "x", "type": "y", "split": [], "quantizers": {"a": {"spec": 3}}}]},
    ],
)
def test_what_is_not_a_map_is_refused(data):
    with pytest.raises(QuantizationError, match="not a quantization map"):
        QuantizationMap.from_dict(data)


def test_a_map_of_another_version_is_refused():
    with pytest.raises(QuantizationError, match="format version 2; this program reads 1"):
        QuantizationMap.from_dict({"format_version": 2, "modules": []})


def test_every_preset_names_registered_modules():
    assert {rule.type for preset in PRESETS.values() for rule in preset.rules} <= set(QMODULE_REGISTRY.names())
