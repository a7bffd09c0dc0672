"""Layers as runtimes compute them agree with those of the quantized network."""

import copy

import pytest
import torch
from torch import nn

from basicsr.deploy.integer import integer_network
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.quant.insertion.insert import CoverageRule, insert_quantizers
from basicsr.quant.integers.products import ContainedValues, IntegerWeight
from basicsr.quant.modules.base import QModule
from basicsr.quant.modules.conv2d_qmodule import RuntimeConv2d
from basicsr.quant.modules.cost import Cost
from basicsr.quant.modules.matmul_qmodule import RuntimeMatMul
from basicsr.quant.spec import QuantizationError
from tests import tiny
from tests.deploy.networks import IMAGE, calibrated
from tests.quant.helpers import set_min_max_bounds

EDSR = {"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]}


def differences(network, **arguments):
    """Return, by layer, the largest difference on the same input, in units of the largest output; borders apart."""
    runtime = eight_bit_network(network, **arguments)
    found = {}

    def hook(name):
        def compare(module, inputs, output):
            own = runtime.get_submodule(name)(*inputs)
            difference = (own - output).abs() / output.abs().max()
            inner = (
                difference[..., 1:-1, 1:-1] if isinstance(runtime.get_submodule(name), RuntimeConv2d) else difference
            )
            found[name] = (float(inner.max()), float(difference.max()))

        return compare

    for name, module in network.named_modules():
        if isinstance(module, QModule):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        network(IMAGE)
    return found


def test_attention_maps_are_multiplied_as_codes_and_their_products_by_the_step():
    network, _ = calibrated("2dquant", 4)
    with torch.no_grad():
        for name, module in network.named_modules():
            if name.endswith("av"):  # as the search for bounds leaves it
                module.a_quantizer.lower_bound.zero_()
    products = {n: m for n, m in eight_bit_network(network).named_modules() if isinstance(m, RuntimeMatMul)}
    assert products
    for name, product in products.items():
        assert product.a.starts_at_zero is name.endswith("av"), "q and k have values on both sides of zero"
        lower, upper, step = product.a.grid
        a = torch.linspace(lower - step, upper + step, 3 * 4 * 5).view(3, 4, 5)
        b = torch.linspace(-2, 2, 3 * 5 * 2).view(3, 5, 2)
        torch.testing.assert_close(product(a, b), product.a(a) @ product.b(b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [None, EDSR], ids=["SwinIR", "EDSR"])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_with_symmetric_weights_every_layer_is_exact(options, bits, granularity):
    insertion = {"weight_symmetric": True, "weight_granularity": granularity} | (
        {"options": options} if options else {}
    )
    network, _ = calibrated("body" if options else "2dquant", bits, **insertion)
    found = differences(network)
    assert found
    for name, (inner, whole) in found.items():
        assert inner < 2e-5, name
        assert whole < 0.02, name  # the shift of an input without a code for zero, where taps see the padding


@pytest.mark.parametrize(("bits", "bound"), [(2, 0.01), (3, 0.015), (4, 0.02), (8, 0.02)])
def test_other_weights_move_little(bits, bound):
    for options, coverage in ((None, "2dquant"), (EDSR, "body")):
        network, _ = calibrated(coverage, bits, **({"options": options} if options else {}))
        for name, (_, whole) in differences(network).items():
            assert whole < bound, name


def test_linear_layers_in_floating_point_are_exact():
    network, _ = calibrated("2dquant", 4)
    found = differences(network, integer_linear=False)
    assert max(whole for _, whole in found.values()) < 2e-5
    runtime = eight_bit_network(network, integer_linear=False)
    assert not any(isinstance(module, IntegerWeight) for module in runtime.modules())


def test_products_are_integers_where_both_factors_are_quantized():
    network, _ = calibrated("full", 4)
    quantized = [m for m in network.modules() if isinstance(m, QModule) and hasattr(m, "weight")]
    runtime = eight_bit_network(network)
    parts = sum(len(getattr(module, "split", ("",))) for module in quantized)
    assert sum(isinstance(module, IntegerWeight) for module in runtime.modules()) == parts
    for module in runtime.modules():
        if isinstance(module, IntegerWeight):
            assert module.codes.dtype == torch.int8


def one_convolution(x, padding=1, **insertion):
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=padding))
    insert_quantizers(network, [CoverageRule("*", "QConv2d")], 4, 4, **insertion)
    set_min_max_bounds(network, x)
    return network.eval()


def test_a_convolution_without_padding_needs_no_code_for_zero():
    x = 5 + torch.rand(1, 3, 9, 11)  # zero is far from the values
    network = one_convolution(x, padding=0, weight_symmetric=True)
    with torch.no_grad():
        torch.testing.assert_close(eight_bit_network(network)(x), network(x), rtol=1e-5, atol=1e-5)


def test_where_zero_is_out_of_reach_a_padded_convolution_stays_in_floating_point():
    x = 50 + torch.rand(1, 3, 9, 11)
    network = one_convolution(x)
    runtime = eight_bit_network(network)
    assert not any(isinstance(module, ContainedValues | IntegerWeight) for module in runtime.modules())
    with torch.no_grad():
        torch.testing.assert_close(runtime(x), network(x), rtol=1e-5, atol=1e-4)


def test_activations_per_channel_stay_in_floating_point():
    x = torch.randn(1, 3, 9, 11) * torch.tensor([0.1, 1, 10]).view(3, 1, 1)
    network = one_convolution(x, activation_granularity="per_channel")
    with torch.no_grad():
        torch.testing.assert_close(eight_bit_network(network)(x), network(x), rtol=1e-5, atol=1e-5)


def test_the_network_itself_is_left_alone():
    network, _ = calibrated()
    state = copy.deepcopy(network.state_dict())
    eight_bit_network(network)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert any(isinstance(module, QModule) for module in network.modules())


def test_dynamic_ranges_are_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    rule = [CoverageRule("*", "QConv2d")]
    insert_quantizers(
        network, rule, 4, 4, activation_quantizer={"type": "Subset"}, activation_granularity="per_channel"
    )
    with pytest.raises(QuantizationError, match="no fixed uniform grid"):
        eight_bit_network(network)


class QOther(QModule):
    """States its cost only."""

    source_type = "Identity"

    @classmethod
    def slots(cls, source, split, /):
        return []

    def cost(self, inputs, output, /):
        return Cost("other", output.numel(), 0, ((32, 32),))

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("convert", "method"), [(eight_bit_network, "runtime_form"), (integer_network, "integer_twin")]
)
def test_a_layer_without_the_form_asked_for_is_named_with_what_it_lacks(convert, method):
    network = nn.Sequential(nn.Sequential(QOther(nn.Identity(), {})))
    with pytest.raises(
        QuantizationError, match=rf"The layer '0\.0' cannot be exported.*QOther.*define QOther\.{method}"
    ):
        convert(network)
