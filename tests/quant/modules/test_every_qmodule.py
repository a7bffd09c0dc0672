"""What holds for every registered quantized module, and the details of each."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from basicsr.archs.arch_util import ResidualAdd
from basicsr.quant.modules.base import QModule
from basicsr.quant.ops.functional import fake_quantize
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QMODULE_REGISTRY, QUANTIZER_REGISTRY
from tests.quant.helpers import set_min_max_bounds
from tests.quant.networks import MatMul

# a module to replace, how it is split, and inputs for it, by the type that it replaces and whether that has parts
SOURCES = {
    "QLinear": (lambda: nn.Linear(8, 6), (), lambda: (torch.randn(2, 5, 8),)),
    "QSplitLinear": (lambda: nn.Linear(8, 12), ("q", "k", "v"), lambda: (torch.randn(2, 5, 8),)),
    "QConv2d": (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2), (), lambda: (torch.randn(2, 4, 9, 7),)),
    "QMatMul": (MatMul, (), lambda: (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 5))),
    "QResidualAdd": (lambda: ResidualAdd(4, 0.1), (), lambda: (torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6))),
    "QScaledResidualAdd": (lambda: ResidualAdd(4, 0.1), (), lambda: (torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6))),
    "QSharedResidualAdd": (lambda: ResidualAdd(4), (), lambda: (torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6))),
}


def build(name, source, split=(), bits=8, granularity="per_tensor"):
    qmodule = QMODULE_REGISTRY.get(name)
    quantizers = {}
    for slot in qmodule.slots(source, split):
        per_channel = slot.role == "weight" and granularity == "per_channel"
        spec = QuantSpec(bits, granularity="per_channel", channel_axis=0) if per_channel else QuantSpec(bits)
        channels = slot.num_channels if per_channel else None
        quantizers[slot.name] = QUANTIZER_REGISTRY.build({"type": "Affine"}, spec, channels, where="quantizer")
    return qmodule(source, quantizers)


def test_every_registered_module_is_tested_here():
    assert set(SOURCES) == set(QMODULE_REGISTRY.names())


@pytest.fixture(params=sorted(SOURCES))
def case(request):
    make_source, split, make_inputs = SOURCES[request.param]
    return request.param, make_source(), split, make_inputs()


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_eight_bits_are_close_to_full_precision(case, granularity):
    name, source, split, inputs = case
    expected = source(*inputs)
    module = build(name, source, split, 8, granularity)
    set_min_max_bounds(module, *inputs)
    output = module(*inputs)
    assert output.shape == expected.shape
    assert float((output - expected).detach().norm() / expected.detach().norm()) < 0.02
    assert not torch.equal(output, expected)


def test_parameters_are_shared_under_their_official_keys(case):
    name, source, split, _ = case
    module = build(name, source, split)
    assert isinstance(module, QModule)
    assert module.source_type == type(source).__name__
    own = dict(module.named_parameters(recurse=False))
    if type(module).learns_besides:
        own = {key: parameter for key, parameter in own.items() if key in dict(source.named_parameters())}
    assert own.keys() == dict(source.named_parameters()).keys()
    assert all(own[key] is parameter for key, parameter in source.named_parameters())
    assert set(source.state_dict()) <= set(module.state_dict())


def test_quantizers_sit_under_the_names_of_their_slots(case):
    name, source, split, _ = case
    module = build(name, source, split)
    names = {key.rpartition(".")[0] for key in module.state_dict() if key.endswith(".bits")}
    assert names == {slot.name for slot in module.slots(source, split)}


def test_what_the_weight_quantizers_see_is_what_weights_returns(case):
    name, source, split, inputs = case
    module = build(name, source, split)
    weights = module.weights()
    assert weights.keys() == {slot.name for slot in module.slots(source, split) if slot.role == "weight"}
    seen = {}
    for slot in weights:
        module.get_submodule(slot).register_forward_pre_hook(lambda m, args, slot=slot: seen.update({slot: args[0]}))
    set_min_max_bounds(module, *inputs)
    assert all(torch.equal(seen[slot], weight) for slot, weight in weights.items())


def test_gradients_reach_bounds_and_inputs(case):
    name, source, split, inputs = case
    module = build(name, source, split, bits=3)
    set_min_max_bounds(module, *inputs)
    inputs = [x.requires_grad_() for x in inputs]
    module(*inputs).square().sum().backward()
    for tensor in (*inputs, *module.parameters()):
        assert bool(tensor.grad.abs().sum() > 0)


def test_every_module_states_its_cost(case):
    name, source, split, inputs = case
    module = build(name, source, split, bits=3)
    set_min_max_bounds(module, *inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = source(*inputs)
    cost = module.cost(inputs, output)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.weights == sum(parameter.numel() for key, parameter in source.named_parameters() if key == "weight")
    assert set(cost.factor_bits) == {(3, 3)} and len(cost.factor_bits) == max(len(split), 1)


def test_a_factor_in_full_precision_has_32_bits():
    module = QMODULE_REGISTRY.get("QLinear")(
        nn.Linear(2, 2), dict.fromkeys(("weight_quantizer", "act_quantizer"), nn.Identity())
    )
    assert module.cost((torch.ones(2),), torch.ones(2)).factor_bits == ((32, 32),)


@pytest.mark.parametrize("form", ["integer_twin", "runtime_form"])
def test_every_module_has_an_integer_twin_and_a_form_for_runtimes(case, form):
    name, source, split, inputs = case
    if name == "QConv2d" and form == "integer_twin":
        source, inputs = nn.Conv2d(4, 6, 3, 2, 1), (torch.randn(2, 4, 9, 7),)  # without groups
    module = build(name, source, split, bits=4)
    set_min_max_bounds(module, *inputs)
    with torch.no_grad():
        expected = module(*inputs)
        twin = module.integer_twin() if form == "integer_twin" else module.runtime_form(integer_linear=False)
        difference = float((twin(*inputs) - expected).abs().max() / expected.abs().max())
    assert difference < (1e-5 if form == "integer_twin" or name != "QConv2d" else 0.05)


def test_modules_without_parts_refuse_a_split():
    for name in set(SOURCES) - {"QSplitLinear"}:
        with pytest.raises(QuantizationError, match="cannot be split into q, k"):
            QMODULE_REGISTRY.get(name).slots(SOURCES[name][0](), ("q", "k"))


@pytest.mark.parametrize("split", [(), ("q",), ("q", "q", "k"), ("a", "b", "c", "d", "e")])
def test_a_linear_layer_is_split_into_equal_and_different_parts_only(split):
    with pytest.raises(QuantizationError, match="12 rows cannot be split into"):
        QMODULE_REGISTRY.get("QSplitLinear").slots(nn.Linear(8, 12), split)


@pytest.mark.parametrize("bias", [True, False])
def test_split_linear_is_three_linear_layers_side_by_side(bias):
    source, x = nn.Linear(8, 12, bias=bias), torch.randn(3, 5, 8)
    module = build("QSplitLinear", source, ("q", "k", "v"), bits=4)
    for i, part in enumerate("qkv"):
        module.get_submodule(part).act_quantizer.set_bounds(-1.0 - i, 1.0 + i)
        module.get_submodule(part).weight_quantizer.set_bounds(-0.1 - i, 0.1 + i)
    parts = []
    for i in range(3):
        rows = slice(4 * i, 4 * i + 4)
        weight = fake_quantize(source.weight[rows], torch.tensor(-0.1 - i), torch.tensor(0.1 + i), 4)
        quantized = fake_quantize(x, torch.tensor(-1.0 - i), torch.tensor(1.0 + i), 4)
        parts.append(nn.functional.linear(quantized, weight, source.bias[rows] if bias else None))
    torch.testing.assert_close(module(x), torch.cat(parts, dim=-1))


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": (0, 1), "groups": 4},
        {"bias": False},
    ],
)
def test_convolution_respects_its_geometry(options):
    source, x = nn.Conv2d(4, 8, 3, **options), torch.randn(2, 4, 10, 9)
    module = build("QConv2d", source)
    set_min_max_bounds(module, x)
    torch.testing.assert_close(module(x), source(x), atol=0.05, rtol=0.05)


def test_the_border_of_a_convolution_is_zero_also_where_no_code_means_zero():
    source = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(source.weight)
    module = build("QConv2d", source, bits=2)
    module.act_quantizer.set_bounds(1.0, 2.0)
    module.weight_quantizer.set_bounds(0.0, 1.0)
    corner = module(torch.ones(1, 1, 4, 4))[0, 0, 0, 0]
    assert float(corner.detach()) == pytest.approx(4.0)  # four pixels inside; the five outside count as 0, not as 1


def test_other_paddings_are_refused():
    with pytest.raises(QuantizationError, match="padding_mode 'reflect' cannot be quantized"):
        QMODULE_REGISTRY.get("QConv2d").slots(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), ())


def test_training_mode_is_taken_over():
    source = nn.Linear(4, 4).eval()
    module = build("QLinear", source)
    assert not module.training
    assert not module.act_quantizer.training


@pytest.mark.parametrize("sizes", [(64, 10, 64), (64, 64, 10), (16, 16, 8), (3, 5, 2), (1, 1, 1)])
def test_products_of_any_size_have_the_values_and_gradients_of_plain_ones(sizes):
    n, k, m = sizes
    a, b = torch.randn(4, 2, n, k), torch.randn(4, 2, m, k).transpose(-2, -1)
    module = build("QMatMul", MatMul(), bits=4)
    for quantizer in (module.a_quantizer, module.b_quantizer):
        quantizer.set_bounds(0.5, 2.0)  # zero is no value of this grid: rows are continued behind the quantizers
    upstream = torch.randn(4, 2, n, m)
    expected = module.a_quantizer(a) @ module.b_quantizer(b)
    product = module(a, b)
    assert product.shape == (4, 2, n, m)
    assert torch.allclose(product, expected, rtol=1e-5)
    bounds = list(module.parameters())
    for found, wanted in zip(
        torch.autograd.grad(product, bounds, upstream), torch.autograd.grad(expected, bounds, upstream), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
