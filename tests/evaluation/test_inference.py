"""Padding, tiles and self-ensemble."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.evaluation.inference import pad_to_multiple, upscale
from basicsr.utils.errors import DataError, OptionsError


class Nearest(nn.Module):
    """Enlarges by repetition after a convolution that sees `reach` pixels around."""

    def __init__(self, scale=2, size_multiple=4, reach=0, symmetric=False):
        super().__init__()
        self.scale, self.size_multiple = scale, size_multiple
        self.conv = nn.Conv2d(3, 3, 2 * reach + 1, 1, reach, padding_mode="zeros")
        if symmetric:
            nn.init.constant_(self.conv.weight, 0.1)
        self.sizes = []

    def forward(self, x):
        assert x.shape[-2] % self.size_multiple == 0 and x.shape[-1] % self.size_multiple == 0
        self.sizes.append(tuple(x.shape[-2:]))
        return self.conv(x).repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(2, 9), st.sampled_from(["official", "mirror", "reflect"]))
def test_padding_is_that_of_numpy(h, w, multiple, mode):
    x = torch.arange(float(h * w)).view(1, 1, h, w)
    extra = [multiple - side % multiple if mode == "official" else -side % multiple for side in (h, w)]
    expected = np.pad(x[0, 0].numpy(), [(0, e) for e in extra], mode="reflect" if mode == "reflect" else "symmetric")
    assert np.array_equal(pad_to_multiple(x, multiple, mode)[0, 0].numpy(), expected)


def test_official_padding_is_the_flipped_copy_of_the_test_script():
    x = torch.rand(2, 3, 13, 16)
    doubled = torch.cat([x, x.flip(2)], 2)[:, :, :16]
    doubled = torch.cat([doubled, doubled.flip(3)], 3)[:, :, :, :24]
    assert torch.equal(pad_to_multiple(x, 8, "official"), doubled)


def test_a_network_for_any_size_gets_no_padding():
    x = torch.rand(1, 3, 5, 7)
    assert pad_to_multiple(x, 1, "official") is x


@pytest.mark.parametrize("pad", ["official", "mirror", "reflect"])
@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8)])
def test_result_has_the_size_of_the_image(pad, size):
    network = Nearest(scale=3)
    lr = torch.rand(2, 3, *size)
    expected = network.conv(lr).repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert torch.allclose(upscale(network, lr, pad=pad), expected)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 8), (24, 8), (16, 12), (64, 8)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_tiles_give_the_whole_image_where_the_network_sees_no_farther(tile, overlap, scale):
    network = Nearest(scale=scale, reach=2)
    lr = torch.rand(2, 3, 39, 50)
    whole, tiled = (
        upscale(network, lr, pad="mirror"),
        upscale(network, lr, pad="mirror", tile=tile, tile_overlap=overlap),
    )
    assert torch.allclose(whole, tiled, atol=1e-6)
    assert max(max(size) for size in network.sizes[1:]) <= tile


@pytest.mark.parametrize("overlap", [0, 4, 12])
def test_tiles_have_no_steps(overlap):
    class Offset(Nearest):
        """A network whose tiles differ from each other by constants: the worst case for seams."""

        def forward(self, x):
            self.sizes.append(x.shape)
            return super().forward(torch.zeros_like(x)) * 0 + float(len(self.sizes) // 2 % 2)

    sr = upscale(Offset(scale=4), torch.rand(1, 3, 16, 60), tile=16, tile_overlap=overlap, pad="mirror")
    steps = sr.diff(dim=-1).abs().max()
    assert (steps == 1) if overlap == 0 else (steps <= 2.5 / (4 * overlap) + 1e-6)
    assert sr.min() >= 0 and sr.max() <= 1


def test_tiles_start_where_windows_do():
    class Windowed(Nearest):
        """Gives each window of the image its mean: any shift of the window grid shows."""

        def forward(self, x):
            means = nn.functional.avg_pool2d(x, self.size_multiple)
            side = self.size_multiple * self.scale
            return means.repeat_interleave(side, -1).repeat_interleave(side, -2)

    lr = torch.rand(1, 3, 37, 41)
    network = Windowed()
    assert torch.allclose(upscale(network, lr, tile=16, tile_overlap=4), upscale(network, lr), atol=1e-6)


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (10, 4), (16, 16), (16, 6), (16, -4)])
def test_tiles_that_do_not_fit_the_network(tile, overlap):
    with pytest.raises(OptionsError, match="tile"):
        upscale(Nearest(), torch.rand(1, 3, 20, 20), tile=tile, tile_overlap=overlap)


def test_a_network_that_cannot_compute_an_image_is_told_in_a_sentence():
    with pytest.raises(
        DataError, match=r"Conv2d cannot enlarge an image of 5x4 pixels: .*weight of size \[3, 1, 1, 1\]"
    ):
        network = nn.Conv2d(1, 3, 1)
        network.scale = 2
        upscale(network, torch.rand(1, 3, 4, 5))


def test_a_network_with_another_scale_than_it_says_is_refused():
    network = Nearest(scale=2, size_multiple=1)
    network.forward = lambda x: x.repeat_interleave(3, -1).repeat_interleave(3, -2)
    with pytest.raises(DataError, match=r"makes 15x12 pixels of 5x4, but says that its scale is 2\. Correct"):
        upscale(network, torch.rand(1, 3, 4, 5))


def test_memory_that_does_not_suffice_is_for_the_caller():
    network = Nearest(scale=2, size_multiple=1)

    def no_memory(_):
        raise RuntimeError("not enough memory: you tried to allocate 1 bytes")

    network.forward = no_memory
    with pytest.raises(RuntimeError, match="not enough memory"):
        upscale(network, torch.rand(1, 3, 4, 5))


def test_self_ensemble_of_an_equivariant_network_changes_nothing():
    network = Nearest(size_multiple=1, reach=1, symmetric=True)
    lr = torch.rand(1, 3, 6, 9)
    assert torch.allclose(upscale(network, lr, self_ensemble=True), upscale(network, lr), atol=1e-6)
    assert network.sizes[:8].count((6, 9)) == network.sizes[:8].count((9, 6)) == 4


def test_self_ensemble_is_the_mean_over_eight_different_views():
    network = Nearest(size_multiple=1, reach=1)
    lr = torch.rand(1, 3, 5, 5)
    views = {
        turned.numpy().tobytes() for k in range(4) for turned in (lr.rot90(k, (2, 3)), lr.rot90(k, (2, 3)).flip(3))
    }
    seen = set()
    network.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].contiguous().numpy().tobytes()))
    result = upscale(network, lr, self_ensemble=True)
    assert seen == views and len(seen) == 8
    # the mean commutes with every flip and rotation, which the network alone does not
    assert torch.allclose(upscale(network, lr.flip(2), self_ensemble=True).flip(2), result, atol=1e-6)
    assert not torch.allclose(upscale(network, lr.flip(2)).flip(2), upscale(network, lr), atol=1e-3)
