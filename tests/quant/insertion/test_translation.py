"""Quantizers that start from those of another network: every pair of kinds, and right values by hand."""

import copy

import pytest
import torch
from torch import nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.insertion.translation import translate_quantizer, translate_quantizers
from basicsr.quant.quantizers.base import Channels
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY
from tests.quant.quantizers.test_every_quantizer import NOT_UNIFORM, REFUSES, build

NAMES = QUANTIZER_REGISTRY.names()
PAIRS = [
    (role, before, now)
    for before in NAMES
    for now in NAMES
    for role in ("weight", "activation")
    if all(role in QUANTIZER_REGISTRY.get(name).roles for name in (before, now))
]
HAS_NO_BOUNDS = {"CADyQ", "DAQ", "DDTB", "Subset", *NOT_UNIFORM}
"""Sources of dynamic ranges and of grids that are not uniform, DDTB as built here, with a gate; a gate's bounds are those of a sample."""
TAKES_NO_BOUNDS = {"DAQ", "LearnedPoints", "Piecewise", "Subset"}


def spec_of(name, bits=3):
    """Return a specification that a quantizer has: asymmetric where it can be."""
    return next(
        QuantSpec(bits, symmetric=symmetric)
        for symmetric in (False, True)
        if not REFUSES.get(name, lambda _: False)(QuantSpec(bits, symmetric=symmetric))
    )


def make(name, bits=3, *, calibrated=False, channels=None, **options):
    """Return a quantizer of two bounds for the tensor, calibrated by bounds where asked for."""
    return _built(name, spec_of(name, bits), channels, options, calibrated)


def _built(name, spec, channels, options, bounds):
    given = [channels] if QUANTIZER_REGISTRY.get(name).takes_channels else []
    number = 4 if spec.granularity == "per_channel" else None
    quantizer = QUANTIZER_REGISTRY.build({"type": name, **options}, spec, number, *given, where="quantizer")
    if bounds:
        lower, upper = (torch.as_tensor(bound) for bound in bounds)
        quantizer.load_calibration(Bounds(lower, upper))
    return quantizer


def affine(lower, upper, bits=3, **spec):
    return _built("Affine", QuantSpec(bits, **spec), None, {}, (lower, upper))


@pytest.mark.parametrize(("role", "before", "now"), PAIRS)
def test_each_pair_of_kinds_translates_or_says_what_it_needs(role, before, now):
    torch.manual_seed(0)
    weight = torch.randn(5, 5, 4, 4) if role == "weight" else None
    source, target = build(before, spec_of(before), None), build(now, spec_of(now), None, calibrated=False)
    impossible = before in HAS_NO_BOUNDS or now in TAKES_NO_BOUNDS
    try:
        how = translate_quantizer(source, target, weight, weight)
    except QuantizationError as error:
        assert impossible
        assert str(error).endswith(".") and len(str(error).split()) > 8
        return
    assert how and not impossible
    x = torch.randn(2, 5, 6, 6) if weight is None else weight
    assert target(x).unique().numel() <= 8 * (2 if target.dynamic else 1)
    lower, upper, largest = (bound.detach() for bound in source.stated_range(weight))
    if target.needs_data_to_start or "current weight" in how or now in HAS_NO_BOUNDS:
        return
    reached = target.stated_range(weight).in_shape(())
    step = float((upper - lower).detach() / 7)
    # as far as both bounds, and at the side of the larger magnitude not by more than two steps beyond it
    assert float(reached.magnitude) >= float(torch.maximum(-lower, largest)) - step
    assert float(reached.magnitude) <= float(torch.maximum(-lower, largest)) * 1.34 + step


def test_a_step_is_the_smallest_that_reaches_both_bounds():
    for lower, upper, codes, step in [
        (-1.0, 1.5, -4, 0.5),  # 1.5 / 3 is more than 1 / 4
        (-3.0, 1.5, -4, 0.75),
        (0.0, 3.5, 0, 0.5),
        (-0.2, 3.5, 0, 0.5),  # nearer to 0 than half a step of 3.5 / 7: would be rounded to it
        (-0.3, 3.5, -4, 3.5 / 3),
    ]:
        target = make("LSQ")
        target.load_range(affine(lower, upper).stated_range())
        assert int(target.lowest_code) == codes
        assert target.step.item() == pytest.approx(step)


def test_a_scale_of_pams_is_the_larger_magnitude_and_goes_back_without_its_unused_code():
    target = make("PAMS")
    target.load_range(affine(-2.0, 1.5).stated_range())
    assert float(target.alpha) == 2.0
    step = make("LSQ")
    step.load_range(target.stated_range())
    assert float(step.step) == pytest.approx(2 / 3)  # the values of PAMS themselves, and one code below them
    x = torch.tensor([-1.9, -1.2, -0.9, -0.2, 0.1, 0.4, 0.9, 1.1, 1.9])  # without ties
    torch.testing.assert_close(step(x), target(x))
    grid = make("Affine")
    grid.load_range(target.stated_range())
    torch.testing.assert_close(grid(x), target(x))


def test_gamma_of_odm_is_the_multiple_of_the_percentile():
    weight = torch.linspace(-1, 1, 201)  # of |W| the percentile 50 is 0.5
    target = make("ODMWeight", percentile=50.0)
    target.load_range(affine(-0.75, 0.25).stated_range(), weight)
    assert float(target.gamma) == pytest.approx(1.5, abs=0.01)
    assert [float(bound) for bound in target.affine_bounds(weight)] == pytest.approx([-0.75, 0.75])
    target.load_range(affine(-0.75, 0.25).stated_range(), torch.zeros(8))
    assert float(target.gamma) == 1.0


def test_bounds_of_ddtb_are_the_same_with_0_among_the_values():
    target = make("DDTB")
    target.load_range(affine(-1.0, 2.5).stated_range())  # steps of 0.5: 0 is a value
    assert [float(target.lower_bound), float(target.upper_bound)] == [-1.0, 2.5]
    assert [float(bound) for bound in target.affine_bounds()] == pytest.approx([-1.0, 2.5])
    target.load_range(affine(-1.1, 2.4).stated_range())
    assert [float(bound) for bound in target.affine_bounds()] == pytest.approx([-1.0, 2.5])
    assert not target.needs_data_to_start
    gated = make("DDTB", channels=Channels(5, 1))
    assert gated.needs_data_to_start
    with pytest.raises(QuantizationError, match="anew for each sample"):
        gated.stated_range()


def test_a_learned_shift_cannot_be_handed_on():
    source = make("QuantSR", channels=Channels(5, 1), calibrated=(-1.0, 1.0))
    assert source.stated_range().largest > 0
    with torch.no_grad():
        source.shift[2] = 0.1
    with pytest.raises(QuantizationError, match="learned a shift of each channel"):
        source.stated_range()


@pytest.mark.parametrize("target_spec", [{}, {"granularity": "per_channel", "channel_axis": 0}])
@pytest.mark.parametrize("source_spec", [{}, {"symmetric": True}])
def test_where_grids_agree_the_output_is_the_same_to_the_bit(source_spec, target_spec):
    source = affine(-1.3, 1.3 if source_spec else 0.7, **source_spec)
    for kind in ("Affine", "AdaRound"):
        target = _built(kind, QuantSpec(3, **target_spec), None, {}, None)
        assert target.load_range(source.stated_range()) == "the same bounds"
        x = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))
        assert torch.equal(source(x), target(x))
        assert torch.equal(source.codes(x), target.codes(x))


def test_other_bits_and_a_coarser_granularity_are_refused():
    with pytest.raises(QuantizationError, match="has 3 bits and the one to start from 4"):
        translate_quantizer(affine(-1.0, 1.0, 4), make("LSQ"), None, None)
    channels = affine([-1.0, -2.0, -1.0, -1.0], [1.0] * 4, granularity="per_channel", channel_axis=0)
    with pytest.raises(
        QuantizationError, match="one pair of bounds for the tensor and the one to start from one for each"
    ):
        translate_quantizer(channels, make("LSQ"), None, None)


def network_of(coverage="full", bits=3, seed=0, **quantizers):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 3, 3))
    own = insert_quantizers(network, coverage, bits, bits, **quantizers)
    for _, quantizer in named_quantizers(network):
        quantizer.load_calibration(Bounds(torch.tensor(-0.5), torch.tensor(1.0)))
    return network.eval(), own


def test_a_network_starts_quantizer_by_quantizer_and_says_how():
    start, of_start = network_of()
    network, own = network_of(activation_quantizer={"type": "LSQ"}, exclude=["0.act_quantizer"])
    translation = translate_quantizers(network, own, start, of_start)
    assert translation.left_out == ["0.act_quantizer"] and not translation.needs_data
    assert translation.ways == {
        ("weight", "Affine", "Affine", "unchanged"): 3,
        ("activation", "Affine", "LSQ", "the smallest step that reaches both bounds"): 2,
    }
    assert "2 activation quantizers: Affine -> LSQ" in translation.describe()
    back = translate_quantizers(start, of_start, network, own)
    assert back.calibrated == back.needs_data == ["0.act_quantizer"]
    assert "1 quantizers calibrated anew" in back.describe()


def test_what_cannot_start_is_named():
    start, of_start = network_of()
    network, own = network_of(activation_quantizer={"type": "DAQ"})
    with pytest.raises(
        QuantizationError, match=r"'0\.act_quantizer', of the kind DAQ.*of the kind Affine.*only be calibrated"
    ):
        translate_quantizers(network, own, start, of_start)


def test_learned_roundings_go_into_the_weights():
    start, of_start = network_of(weight_quantizer={"type": "AdaRound"})
    for _, quantizer in named_quantizers(start, "weight"):
        weight = dict(start.named_parameters())[quantizer.name.replace("weight_quantizer", "weight")]
        quantizer.start_rounding(weight)
        with torch.no_grad():
            quantizer.rounding.neg_()  # the other of the two neighbours
        quantizer.finish_rounding()
    network, own = network_of()
    x = torch.rand(1, 3, 12, 12)
    nearest = network(x)
    network.load_state_dict(copy.deepcopy(network.state_dict()))
    translation = translate_quantizers(network, own, start, of_start)
    assert translation.rounded == ["0.weight_quantizer", "2.weight_quantizer", "3.weight_quantizer"]
    assert torch.equal(network(x), start(x)) and not torch.equal(network(x), nearest)
