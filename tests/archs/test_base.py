"""What is asked of a super-resolution network that declares nothing of itself, and of one with the defaults."""

import pytest
import torch
from torch import nn

from basicsr.archs.base import (
    SRNetwork,
    detect_options,
    feature_layers_of,
    for_any_size,
    reconstruction_blocks_of,
    scale_of,
    size_multiple_of,
)
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.errors import OptionsError


class Smallest(SRNetwork):
    scale = 2

    def forward(self, x):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("network", [Smallest(), nn.Identity()])
def test_defaults_are_those_of_any_module(network):
    assert size_multiple_of(network) == 1
    assert reconstruction_blocks_of(network) == ()
    assert for_any_size(network) is network
    assert detect_options(type(network), {}) is None
    assert feature_layers_of(network) == ()


def test_a_scale_is_needed_where_it_is_asked_for():
    assert scale_of(Smallest()) == 2
    with pytest.raises(OptionsError, match="The network Identity has no integer attribute 'scale' but None"):
        scale_of(nn.Identity())


@pytest.mark.parametrize("multiple", [0, 1.5, True])
def test_a_size_multiple_is_a_positive_integer(multiple):
    network = nn.Identity()
    network.size_multiple = multiple
    with pytest.raises(OptionsError, match="set it to a positive integer"):
        size_multiple_of(network)


def test_a_state_dict_is_remapped_to_itself_by_default():
    state = {"a": torch.ones(1)}
    assert Smallest().remap_state_dict(state) == state


def test_options_are_detected_from_the_weights_of_the_architecture_only():
    options = detect_options(EDSR, EDSR(num_feat=8, num_block=3, upscale=2).state_dict())
    assert options == {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 3, "upscale": 2}
    assert detect_options(EDSR, {"something": torch.ones(1)}) is None
