"""Mirroring and the small modules that architectures share."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.archs.arch_util import MatMul, is_bare, mirror_index, mirror_to_size, pixel_shuffle_steps


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(0, 40), st.booleans())
def test_mirror_index_is_numpy_padding(length, extra, repeat_edge):
    expected = np.pad(np.arange(length), (0, extra), mode="symmetric" if repeat_edge else "reflect")
    index = mirror_index(length, length + extra, torch.device("cpu"), repeat_edge=repeat_edge)
    assert index.tolist() == expected.tolist()


def test_mirror_to_size_acts_on_both_sides():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert mirror_to_size(x, 3, 5, repeat_edge=True)[0, 0].tolist() == [
        [0, 1, 2, 2, 1],
        [3, 4, 5, 5, 4],
        [3, 4, 5, 5, 4],
    ]
    assert mirror_to_size(x, 2, 3, repeat_edge=True) is x


def test_is_bare_notices_every_way_to_listen():
    class Subclass(MatMul):
        pass

    assert is_bare(MatMul(), MatMul)
    assert not is_bare(Subclass(), MatMul)
    for register in (
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: m.register_forward_pre_hook(lambda *_: None),
        lambda m: m.register_full_backward_hook(lambda *_: None),
        lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    ):
        module = MatMul()
        handle = register(module)
        assert not is_bare(module, MatMul)
        handle.remove()
        assert is_bare(module, MatMul)


@pytest.mark.parametrize("upscale", [1, 2, 3, 4, 8])
def test_pixel_shuffle_steps_enlarge(upscale):
    assert pixel_shuffle_steps(upscale, 5)(torch.rand(1, 5, 3, 4)).shape == (1, 5, 3 * upscale, 4 * upscale)


@pytest.mark.parametrize("upscale", [0, 5, 6, -2])
def test_pixel_shuffle_steps_refuse_other_factors(upscale):
    with pytest.raises(ValueError, match=f"upscale is {upscale}"):
        pixel_shuffle_steps(upscale, 5)


def test_matmul_has_no_state():
    assert not MatMul().state_dict() and isinstance(MatMul(), nn.Module)
