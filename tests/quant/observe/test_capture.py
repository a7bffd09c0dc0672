"""Observing inputs, tapping outputs and counting values, with hooks that never stay behind."""

import pytest
import torch
from torch import nn

from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers, quantized_weights
from basicsr.quant.observe.capture import (
    COUNT_LIMIT,
    bypass_quantizers,
    count_codes,
    count_quantized_elements,
    drop_quantization,
    observe_quantizer_inputs,
    tap_activations,
    tap_outputs,
)
from basicsr.quant.quantizers.affine_quantizer import AffineQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from tests.quant.helpers import set_min_max_bounds
from tests.quant.networks import TinySwin

BLOCK = "layers.0.residual_group.blocks.0"


@pytest.fixture
def x():
    return torch.rand(2, 3, 6, 5)


@pytest.fixture
def quantized(x):
    network = TinySwin().eval()
    insert_quantizers(network, "2dquant", 4, 3)
    set_min_max_bounds(network, x)
    return network


def hooks_of(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_observed_inputs_are_those_of_the_full_precision_network(x):
    network = TinySwin().eval()
    state = network.state_dict()
    insert_quantizers(network, "2dquant", 2, 2)  # never calibrated
    seen = {}
    names = [f"{BLOCK}.mlp.fc1.act_quantizer", f"{BLOCK}.attn.av.a_quantizer", f"{BLOCK}.attn.qkv.v.weight_quantizer"]
    with observe_quantizer_inputs(network, {name: lambda t, name=name: seen.update({name: t}) for name in names}):
        output = network(x)

    plain = TinySwin().eval()
    plain.load_state_dict(state)
    with tap_outputs(plain, [f"{BLOCK}.norm2"]) as features:
        assert torch.equal(output, plain(x))
    assert torch.equal(seen[names[0]], features[f"{BLOCK}.norm2"])
    torch.testing.assert_close(seen[names[1]].sum(-1), torch.ones(2, 2, 30))
    assert torch.equal(seen[names[2]], quantized_weights(network)[names[2]])
    assert not any(t.requires_grad for t in seen.values())


def test_bypass_is_undone_and_hooks_are_removed_also_after_an_error(quantized, x):
    expected = quantized(x)
    name = f"{BLOCK}.mlp.fc1.act_quantizer"

    def fail(_):
        raise RuntimeError("boom")

    for context in (
        observe_quantizer_inputs(quantized, {name: fail}),
        observe_quantizer_inputs(quantized, {name: lambda _: None, "nowhere": fail}),
        tap_outputs(quantized, [BLOCK, "nowhere"]),
        bypass_quantizers(quantized),
        tap_activations(quantized),
        count_codes(quantized),
        count_quantized_elements(quantized, [name]),
        count_quantized_elements(quantized, [name, "nowhere"]),
    ):
        with pytest.raises((RuntimeError, QuantizationError)), context:
            quantized(x)
            raise RuntimeError("after the forward pass")
        assert hooks_of(quantized) == 0
        assert not any(quantizer.bypass for _, quantizer in named_quantizers(quantized))
    assert torch.equal(quantized(x), expected)


def test_bypass_nests_and_gives_full_precision(quantized, x):
    plain = TinySwin().eval()
    plain.load_state_dict({k: v for k, v in quantized.state_dict().items() if "quantizer" not in k})
    with bypass_quantizers(quantized):
        with bypass_quantizers(quantized):
            pass
        assert torch.equal(quantized(x), plain(x))
    assert not torch.equal(quantized(x), plain(x))


def test_unknown_names_suggest_the_nearest(quantized):
    unknown_quantizer = observe_quantizer_inputs(quantized, {f"{BLOCK}.mlp.fc1.act": print})
    with (
        pytest.raises(QuantizationError, match=r"no quantizer '.*fc1\.act'. Did you mean '.*fc1\.act_quantizer'"),
        unknown_quantizer,
    ):
        quantized(torch.rand(1, 3, 4, 4))
    unknown_module = tap_outputs(quantized, ["conv_frist"])
    with pytest.raises(QuantizationError, match=r"no module 'conv_frist'. Did you mean 'conv_first'"), unknown_module:
        quantized(torch.rand(1, 3, 4, 4))


def test_tapped_outputs_carry_gradients_to_the_bounds(quantized, x):
    with tap_outputs(quantized, [BLOCK]) as outputs:
        quantized(x)
        outputs[BLOCK].square().sum().backward()
        first = outputs[BLOCK]
        quantized(x * 0.5)
        assert outputs[BLOCK] is not first
    bounds = dict(named_quantizers(quantized))[f"{BLOCK}.mlp.fc1.act_quantizer"]
    assert float(bounds.upper_bound.grad.abs()) > 0
    assert hooks_of(quantized) == 0


def test_quantized_elements_accumulate(quantized, x):
    fc1, weight = f"{BLOCK}.mlp.fc1.act_quantizer", f"{BLOCK}.attn.qkv.v.weight_quantizer"
    with count_quantized_elements(quantized, [fc1, weight]) as elements:
        assert elements == {fc1: 0, weight: 0}
        quantized(x)
        assert elements == {fc1: 2 * 30 * 12, weight: 12 * 12}  # samples, pixels, channels
        quantized(x[:1])
    assert elements == {fc1: 3 * 30 * 12, weight: 2 * 12 * 12}


def test_no_quantizer_of_a_network_puts_out_more_values_than_its_bits_allow(quantized, x):
    with torch.no_grad(), count_codes(quantized) as counts:
        quantized(x)
        quantized(torch.randn(1, 3, 7, 9))
    quantizers = dict(named_quantizers(quantized))
    assert counts.keys() == quantizers.keys()
    assert all(1 < count <= quantizers[name].spec.num_levels for name, count in counts.items())
    assert max(counts.values()) == 16


def test_counts_accumulate_and_equal_those_of_unique():
    quantizer = nn.ModuleDict({"a": AffineQuantizer(QuantSpec(6))})
    quantizer["a"].set_bounds(-3.0, 3.0)
    seen = []
    with count_codes(quantizer) as counts:
        for scale in (0.1, 1.0, 5.0):
            seen.append(quantizer["a"](torch.randn(9000) * scale).detach())
            assert counts["a"] == torch.cat(seen).unique().numel()
    assert counts["a"] == 64


def test_counts_do_not_trust_the_codes():
    class Cheat(AffineQuantizer):
        def fake_quantize(self, x):
            return x * 1.0

    network = nn.ModuleDict({"cheat": Cheat(QuantSpec(2))})
    network["cheat"].set_bounds(-1.0, 1.0)
    with count_codes(network) as counts:
        network["cheat"](torch.arange(100.0))
        assert counts["cheat"] == 100
        network["cheat"](torch.randn(5000))
        network["cheat"](torch.randn(5000))
    assert counts["cheat"] == COUNT_LIMIT
    with count_codes(network) as counts:
        network["cheat"](torch.full((5,), float("nan")))
    assert counts["cheat"] > 4  # NaN is never taken for a value that was seen


def test_channels_of_a_per_channel_quantizer_count_apart():
    network = nn.ModuleDict({"a": AffineQuantizer(QuantSpec(2, granularity="per_channel", channel_axis=1), 3)})
    network["a"].set_bounds(-torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    with count_codes(network) as counts:
        network["a"](torch.randn(500, 3))
        network["a"](torch.randn(500, 3).bfloat16())
    assert counts["a"] <= 8  # four values, and four more that bfloat16 rounds differently


def test_each_sample_of_a_dynamic_quantizer_counts_apart():
    class PerSample(AffineQuantizer):
        dynamic = True

        def fake_quantize(self, x):
            largest = x.abs().amax(dim=(2, 3), keepdim=True)
            return super().fake_quantize(x / largest) * largest

    for axis, channels in ((None, None), (1, 3)):
        granularity = "per_tensor" if axis is None else "per_channel"
        network = nn.ModuleDict({"a": PerSample(QuantSpec(2, granularity=granularity, channel_axis=axis), channels)})
        network["a"].set_bounds(-1.0, 1.0)
        with count_codes(network) as counts:
            for _ in range(2):
                network["a"](torch.randn(5, 3, 20, 20) * torch.tensor([1.0, 2.0, 3.0])[:, None, None])
        assert counts["a"] == (4 if axis == 1 else 12)


def test_dropping_lets_a_share_of_each_activation_pass_and_no_weight(quantized, x):
    names = [f"{BLOCK}.mlp.fc1.act_quantizer", f"{BLOCK}.mlp.fc1.weight_quantizer"]
    quantizers = dict(named_quantizers(quantized))
    hooks = hooks_of(quantized)
    values = torch.randn(20000)
    with drop_quantization(quantized, 0.3):
        mixed = [quantizers[name](values) for name in names]
        again = quantizers[names[0]](values)
    activation, weight = (quantizers[name](values) for name in names)
    assert hooks_of(quantized) == hooks
    assert torch.equal(mixed[1], weight)
    passed = mixed[0] == values
    assert 0.27 < float(passed.float().mean()) < 0.33
    assert torch.equal(mixed[0][~passed], activation[~passed])
    assert not torch.equal(mixed[0], again)


def test_dropping_nothing_draws_no_random_number(quantized, x):
    before = torch.get_rng_state()
    with drop_quantization(quantized, 0.0):
        output = quantized(x)
    assert torch.equal(output, quantized(x)) and torch.equal(torch.get_rng_state(), before)


def test_dropping_in_a_single_layer_knows_its_weight(quantized):
    layer = quantized.get_submodule(f"{BLOCK}.mlp.fc1")
    weight = layer.weight_quantizer(layer.weight)
    with drop_quantization(layer, 0.9):
        assert torch.equal(layer.weight_quantizer(layer.weight), weight)


def test_tapped_activations_are_those_of_the_forward_pass_with_their_gradients(quantized, x):
    with tap_activations(quantized) as pairs:
        quantized(x)
    quantizers, weights = dict(named_quantizers(quantized)), quantized_weights(quantized)
    assert set(pairs) == set(quantizers) - set(weights)
    for name, (given, returned) in pairs.items():
        assert torch.equal(quantizers[name](given), returned)
    given, returned = pairs[f"{BLOCK}.mlp.fc2.act_quantizer"]
    (given - returned).norm().backward()
    assert quantized.get_submodule(f"{BLOCK}.mlp.fc1").weight.grad is not None
