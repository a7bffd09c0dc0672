"""Orders of tokens, masks, and the ways to compute attention."""

import pytest
import torch

from basicsr.archs.arch_util import MatMul
from basicsr.archs.window_attention import (
    WindowAttention,
    _attend_fused,
    _attend_in_cache,
    relative_position_index,
    shifted_window_masks,
    token_layouts,
)
from tests.archs.plain_swinir import cut_windows, position_index, shift_mask

SIZES = [(8, 8), (8, 24), (24, 8), (16, 16), (24, 40)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_the_windows(size):
    h, w = size
    layouts = token_layouts(h, w, 8, CPU)
    image = torch.rand(2, h * w, 3)
    aligned = layouts.reorder(image, "image", "aligned")
    assert torch.equal(aligned.view(-1, 64, 3), cut_windows(image.view(2, h, w, 3), 8))
    shifted = layouts.reorder(aligned, "aligned", "shifted")
    expected = cut_windows(image.view(2, h, w, 3).roll((-4, -4), (1, 2)), 8).view(2, -1, 64, 3)
    found = shifted.view(2, -1, 64, 3)
    order = [(expected == found[:, i : i + 1]).all(dim=(0, 2, 3)).nonzero().item() for i in range(h * w // 64)]
    assert sorted(order) == list(range(h * w // 64))
    assert torch.equal(layouts.reorder(shifted, "shifted", "image"), image)
    # the windows of a group have the mask that the plain implementation gives them
    masks = shifted_window_masks(8)[:, 0]
    groups = torch.arange(4).repeat_interleave(torch.tensor(layouts.groups["shifted"]))
    assert torch.equal(masks[groups], shift_mask(h, w, 8, 4)[order])


def test_reordering_passes_gradients_to_the_tokens_they_came_from():
    x = torch.rand(2, 128, 3, dtype=torch.float64, requires_grad=True)
    layouts = token_layouts(16, 8, 8, CPU)
    weight = torch.rand(2, 128, 3, dtype=torch.float64)
    (layouts.reorder(x, "image", "shifted") * weight).sum().backward()
    assert torch.equal(x.grad, layouts.reorder(weight, "shifted", "image"))


def test_layouts_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        made = token_layouts(24, 40, 8, CPU)
    x = torch.rand(1, 960, 2, requires_grad=True)
    layouts = token_layouts(24, 40, 8, CPU)
    layouts.reorder(x, "image", "aligned").sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x)) and layouts is not made


def test_layouts_of_training_outlive_those_of_many_images():
    layouts = token_layouts(16, 16, 8, CPU)
    with torch.no_grad():
        for columns in range(1, 20):
            token_layouts(16, 8 * columns, 8, CPU)
    assert token_layouts(16, 16, 8, CPU) is layouts


@pytest.mark.parametrize("window", [2, 4, 8])
def test_position_index(window):
    assert torch.equal(relative_position_index(window).view(window**2, -1), position_index(window))


@pytest.mark.parametrize("head_dim", [5, 8, 10])
@pytest.mark.parametrize("groups", [(3,), (60,), (0, 3, 0, 1), (25, 5, 5, 1)])
def test_all_ways_to_attend_agree(groups, head_dim):
    heads, tokens = 3, 16
    qkv = torch.randn(2, sum(groups), tokens, 3, heads, head_dim)
    bias = torch.randn(len(groups), heads, tokens, tokens)
    attention = WindowAttention(heads * head_dim, 4, heads, "aligned", True)
    expected = attention._attend_by_modules(qkv, bias, groups).unflatten(0, qkv.shape[:2])
    for attend in (_attend_fused, _attend_in_cache):
        assert torch.allclose(attend(qkv, bias, groups, attention.scale), expected, atol=1e-5)
    in_parts = attention._attend_by_modules_in_cache(qkv, bias, groups)
    assert torch.allclose(in_parts.unflatten(0, qkv.shape[:2]), expected, atol=1e-5)
    assert torch.isfinite(expected).all()


class TwiceTheProduct(MatMul):
    """Stands for a quantized product: not bare, and with a part of its own."""

    def __init__(self):
        super().__init__()
        self.part = torch.nn.Identity()
        self.products = []

    def forward(self, a, b):
        product = self.part(2 * super().forward(a, b))
        self.products.append(len(product))
        return product


@pytest.mark.parametrize("watched", ["qk", "av.part"])
def test_modules_get_a_few_windows_at_a_time_unless_gradients_are_needed_or_hooks_look(watched):
    attention = WindowAttention(30, 4, 3, "shifted", True)
    attention.qk, attention.av = TwiceTheProduct(), TwiceTheProduct()
    x, groups = torch.randn(2, 56 * 16, 30), (35, 7, 13, 1)
    expected = attention(x, groups)
    assert attention.qk.products == attention.av.products == [112]
    with torch.no_grad():
        attention.qk.products.clear()
        assert torch.allclose(attention(x, groups), expected, atol=1e-5)
        assert attention.qk.products == [24, 24, 24, 24, 16]
        attention.qk.products.clear()
        seen = []
        attention.get_submodule(watched).register_forward_hook(lambda _m, _x, product: seen.append(len(product)))
        assert torch.allclose(attention(x, groups), expected, atol=1e-5)
    assert seen == attention.qk.products == [112]
