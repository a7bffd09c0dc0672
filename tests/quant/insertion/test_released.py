"""State dicts in the layout released with 2DQuant."""

import pytest
import torch

from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.quant.insertion.released import convert_released_2dquant, is_released_2dquant
from basicsr.quant.spec import QuantizationError
from tests.quant.helpers import set_min_max_bounds
from tests.quant.networks import TinySwin

BLOCK = "layers.1.residual_group.blocks.0"
TO_RELEASED = {
    ".qk.a_quantizer.": ".mymodule_q.",
    ".qk.b_quantizer.": ".mymodule_k.",
    ".av.a_quantizer.": ".mymodule_a.",
    ".av.b_quantizer.": ".mymodule_v.",
}


def released_state_dict(network):
    """Write the state of a quantized network as the released code would."""
    released = {}
    for key, value in network.state_dict().items():
        if ".attn.qkv." in key and key.endswith((".weight", ".bias")):
            layer, _, parameter = key.rpartition(".")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                released[f"{layer}.{part}.{parameter}"] = rows
            continue
        for ours, theirs in TO_RELEASED.items():
            key = key.replace(ours, theirs)
        if key.endswith(".bits"):
            released[key.removesuffix(".bits") + ".n_bit"] = value.reshape(1).float()
        elif key.endswith("_bound"):
            released[key] = value.reshape(1)
        elif not key.endswith(".calibrated"):
            released[key] = value
    return released


@pytest.fixture
def network():
    network = TinySwin().eval()
    insert_quantizers(network, "2dquant", 3, 3)
    set_min_max_bounds(network, torch.rand(1, 3, 5, 6))
    return network


def test_a_released_state_dict_loads_strictly_and_gives_the_same_output(network):
    released = released_state_dict(network)
    assert f"{BLOCK}.attn.mymodule_a.upper_bound" in released
    assert f"{BLOCK}.attn.qkv.k.weight" in released
    assert is_released_2dquant(released)
    fresh = TinySwin().eval()
    insert_quantizers(fresh, "2dquant", 3, 3)
    fresh.load_state_dict(convert_released_2dquant(released), strict=True)
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(fresh(x), network(x))


def test_conversion_restores_every_entry(network):
    expected = network.state_dict()
    converted = convert_released_2dquant(released_state_dict(network))
    assert converted.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(converted[key], value), key
        assert converted[key].shape == value.shape


def test_our_own_and_full_precision_state_dicts_are_not_taken_for_released_ones(network):
    assert not is_released_2dquant(network.state_dict())
    assert not is_released_2dquant(TinySwin().state_dict())


def test_other_bits_than_those_of_the_checkpoint_are_refused(network):
    fresh = TinySwin()
    insert_quantizers(fresh, "2dquant", 4, 4)
    with pytest.raises(QuantizationError, match=r"has 4 bits, but the checkpoint was made with 3 bits"):
        fresh.load_state_dict(convert_released_2dquant(released_state_dict(network)))


def test_damaged_checkpoints_are_refused(network):
    released = released_state_dict(network)
    with pytest.raises(QuantizationError, match=r"4\.5 bits, which is not a whole number"):
        convert_released_2dquant(released | {f"{BLOCK}.mlp.fc1.act_quantizer.n_bit": torch.tensor([4.5])})
    del released[f"{BLOCK}.attn.qkv.v.weight"]
    with pytest.raises(QuantizationError, match=r"lacks layers\.1\.residual_group\.blocks\.0\.attn\.qkv\.v\.weight;"):
        convert_released_2dquant(released)
