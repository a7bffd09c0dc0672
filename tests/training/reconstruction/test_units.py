"""Which block learns what, and in which iterations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.training.reconstruction.units import Unit, plan_units
from basicsr.utils.errors import OptionsError
from tests import tiny

BLOCK = "layers.0.residual_group.blocks.0"
LAYER, PRODUCT = f"{BLOCK}.mlp.fc1", f"{BLOCK}.attn.qk"  # which has no weight


@pytest.fixture(scope="module")
def network():
    network = build_network({"type": "SwinIR", **tiny.NETWORK})
    insert_quantizers(network, "2dquant", 4, 4)
    return network


def test_together_each_block_has_an_equal_share(network):
    units = plan_units(network, [BLOCK, LAYER, PRODUCT], 8, "joint", 0.5)
    assert units == [Unit(BLOCK, "both", 0, 3), Unit(LAYER, "both", 3, 6), Unit(PRODUCT, "both", 6, 8)]


def test_roundings_come_first_where_there_are_weights_and_then_all_bounds(network):
    units = plan_units(network, [LAYER, PRODUCT], 10, "weights_first", 0.4)
    assert units == [Unit(LAYER, "roundings", 0, 6), Unit(LAYER, "bounds", 6, 8), Unit(PRODUCT, "bounds", 8, 10)]


def test_a_part_without_anything_to_learn_gets_no_iterations(network):
    assert plan_units(network, [PRODUCT], 7, "weights_first", 0.2) == [Unit(PRODUCT, "bounds", 0, 7)]


@given(total=st.integers(4, 10_000), share=st.floats(0.01, 0.99), order=st.sampled_from(["joint", "weights_first"]))
def test_units_fill_the_run_without_gaps_and_differ_by_one(network, total, share, order):
    try:
        units = plan_units(network, [LAYER, BLOCK], total, order, share)
    except OptionsError:
        return
    assert units[0].first == 0 and units[-1].end == total
    assert all(before.end == after.first for before, after in zip(units, units[1:], strict=False))
    for learns in {unit.learns for unit in units}:
        lengths = [unit.end - unit.first for unit in units if unit.learns == learns]
        assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1


def test_too_few_iterations_for_a_part(network):
    with pytest.raises(
        OptionsError, match="'train:total_iter' leaves 1 iterations to learn bounds, but there are 2 blocks"
    ):
        plan_units(network, [LAYER, BLOCK], 5, "weights_first", 0.2)
