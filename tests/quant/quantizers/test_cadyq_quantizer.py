"""CADyQ: which bits it chooses, what they cost, and what it tells of them."""

import copy

import pytest
import torch
from torch import nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.capture import observe_chosen_bits
from basicsr.quant.ops.image_gradient import mean_image_gradient
from basicsr.quant.ops.step_functional import fake_quantize_by_step
from basicsr.quant.quantizers.base import Channels, StatedRange
from basicsr.quant.quantizers.cadyq_quantizer import CADyQQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec

X = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(3))
SPEC = QuantSpec(8, symmetric=True)


def calibrated(**options):
    quantizer = CADyQQuantizer(SPEC, None, Channels(2, 1), **options)
    quantizer.load_calibration(Bounds(torch.tensor(-0.5), torch.tensor(2.0)))
    return quantizer


def choosing(*thresholds):
    """Return a quantizer that takes 4 bits where the sum of deviations is below the first threshold, 8 from the second on."""
    quantizer = calibrated()
    with torch.no_grad():
        quantizer.selector.weight.copy_(torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 2, 2]]))
        quantizer.selector.bias.copy_(torch.tensor([0, -thresholds[0], -thresholds[0] - thresholds[1]]))
    return quantizer


def samples(*factors):
    return X[:1] * torch.tensor(factors).view(-1, 1, 1, 1)


def test_the_gradient_of_a_ramp_by_hand():
    """Grey rises by 3 a pixel to the right: (1 + 2 + 1) * 6 / 8 = 3 inside, half of it at the two repeated borders."""
    ramp = 3 * torch.arange(6.0).expand(1, 3, 5, 6)
    expected = 3 * (4 + 2 * 0.5) / 6
    torch.testing.assert_close(mean_image_gradient(ramp), torch.tensor([[expected, 0.0]]))
    torch.testing.assert_close(mean_image_gradient(ramp.transpose(2, 3)), torch.tensor([[0.0, expected]]))
    red = torch.zeros(1, 3, 5, 6)
    red[:, 0] = ramp[:, 0]
    torch.testing.assert_close(mean_image_gradient(red), torch.tensor([[0.299 * expected, 0.0]]))


def test_at_first_it_takes_the_most_bits():
    quantizer = calibrated().eval()
    assert quantizer.choices == (4, 6, 8) and torch.equal(quantizer.alpha, torch.full((3,), 2.0))
    assert torch.equal(quantizer(X), fake_quantize_by_step(X, torch.tensor(2 / 127), -127, 127, None))
    assert quantizer.chosen_bits.tolist() == [8, 8, 8]


def test_bits_follow_the_deviations_of_a_sample():
    deviation = float(X[0].flatten(1).std(dim=1).sum())
    quantizer = choosing(0.5 * deviation, 2 * deviation).eval()
    x = samples(0.1, 1.0, 10.0)
    output = quantizer(x)
    assert quantizer.chosen_bits.tolist() == [4, 6, 8]
    for row, bits in enumerate((4, 6, 8)):
        highest = 2 ** (bits - 1) - 1
        assert torch.equal(
            output[row], fake_quantize_by_step(x[row], torch.tensor(2.0) / highest, -highest, highest, None)
        )
        assert int(quantizer.codes(x)[row].max()) <= 2**bits - 2


def test_gradients_are_those_of_the_mixture():
    quantizer = choosing(0.7, 1.1).train()
    twin = copy.deepcopy(quantizer)
    (quantizer(X) * X).sum().backward()
    shares = twin.logits(X).softmax(dim=1)
    mixed = sum(
        shares[:, i].view(-1, 1, 1, 1) * fake_quantize_by_step(X, twin.alpha[i] / top, -top, top, None)
        for i, top in enumerate((7, 31, 127))
    )
    (mixed * X).sum().backward()
    for found, wanted in zip(quantizer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)


def test_the_loss_of_bits_by_hand():
    """Each sample costs its bits over the expected ones; the gradient is that of the expected bits."""
    quantizer = choosing(0.7, 1.1).train()
    quantizer.step_taken()
    quantizer(X)
    shares = quantizer.logits(X).softmax(dim=1)
    expected = shares @ torch.tensor([4.0, 6.0, 8.0])
    penalty = quantizer.take_penalty()
    weight = 1e-5 + 1e-10
    torch.testing.assert_close(penalty, weight * (quantizer.chosen_bits / expected).sum())
    (found,) = torch.autograd.grad(penalty, quantizer.selector.bias)
    (wanted,) = torch.autograd.grad(weight * (expected / expected.detach()).sum(), quantizer.selector.bias)
    torch.testing.assert_close(found, wanted)
    assert quantizer.take_penalty() is None and quantizer.eval()(X) is not None and quantizer.take_penalty() is None


def test_it_starts_from_bounds_and_has_none_to_hand_on():
    source, target = calibrated(), CADyQQuantizer(SPEC, None, Channels(2, 1))
    target.load_range(StatedRange(torch.tensor(-3.0), torch.tensor(1.0), torch.tensor(1.0)))
    assert target.alpha.tolist() == [3.0, 3.0, 3.0] and bool(target.calibrated)
    for call in (source.stated_range, source.affine_bounds):
        with pytest.raises(QuantizationError, match="CADyQ"):
            call()


@pytest.mark.parametrize(("average", "share"), [(None, 1.0), (5.0, 1.0), (7.0, 0.0)])
def test_the_loss_pauses_where_the_average_is_reached(average, share):
    deviation = float(X[0].flatten(1).std(dim=1).sum())
    quantizer = choosing(0.5 * deviation, 2 * deviation).train()
    quantizer._average_bits = average
    quantizer(samples(0.1, 1.0, 10.0))  # 6 bits in the mean
    penalty = quantizer.take_penalty()
    torch.testing.assert_close(CADyQQuantizer.join_penalties([penalty], [quantizer]), share * penalty)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"average_bits": 3.0},
            r"3 bits is out of reach: CADyQ chooses from \[4, 6, 8\] bits, whose averages are from 4 to below 8",
        ),
        ({"average_bits": 8.0}, "8 bits is out of reach"),
        ({"choices": (4, 6)}, r"choose from \[4, 6\] bits in a run of 8 bits"),
        ({"choices": (1, 8)}, "from 2 bits on"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(QuantizationError, match=message):
        calibrated(**options)


def test_a_network_hands_over_the_gradient_of_its_pictures():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)).eval()
    rules = [CoverageRule("*", "QConv2d")]
    insert_quantizers(
        network, rules, 8, 8, activation_quantizer={"type": "CADyQ"}, weight_quantizer={"type": "Affine"}, activation_symmetric=True
    )  # fmt: skip
    own = [q for _, q in named_quantizers(network, "activation")]
    for _, quantizer in named_quantizers(network):
        quantizer.load_calibration(Bounds(torch.tensor(-1.0), torch.tensor(1.0)))
    with torch.no_grad():  # the first one takes 4 bits where pictures change from left to right, the second always 8
        own[0].selector.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]))
        own[0].selector.bias.copy_(torch.tensor([-1.0, -9.0, 0.0]))
    flat = torch.full((1, 3, 8, 8), 0.5)
    ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    twin = copy.deepcopy(network)
    for one in (network, twin):
        with observe_chosen_bits(one) as means, torch.no_grad():
            one(torch.cat([flat, ramp]))
            one(ramp)
        assert [m.tolist() for m in means] == [[8.0, 6.0], [6.0]]
    assert twin[0].act_quantizer.image_gradient is not own[0].image_gradient
    with pytest.raises(QuantizationError, match="is given 4 samples for 1 pictures"):
        own[0](torch.zeros(4, 3, 8, 8))
