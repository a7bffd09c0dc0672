"""Ranges of channels made equal, and the norm and layers that carry the change."""

import torch
from torch import nn

from basicsr.quant.modules.linear_qmodule import QLinear
from basicsr.quant.modules.norm_fold import ChannelChange, common_range, fold_into


def test_a_range_for_all_by_hand():
    lower, upper = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 6.0])
    factors, offsets = common_range(lower, upper, 1e-3)
    # widths 2 and 6, mean 4; lower / width -1/2 and 0, mean -1/4: the common range is -1 to 3
    torch.testing.assert_close(factors, torch.tensor([0.5, 1.5]).double())
    for bound, common in ((lower, -1.0), (upper, 3.0)):
        torch.testing.assert_close((bound - offsets) / factors, torch.full((2,), common).double())


def test_a_channel_that_hardly_varies_is_not_blown_up():
    lower, upper = torch.tensor([2.0, -1.0]), torch.tensor([2.0 + 1e-6, 1.0])
    factors, _ = common_range(lower, upper, 0.01)
    torch.testing.assert_close(factors[0] / factors[1], torch.tensor(0.01).double())


def test_norm_and_layers_carry_a_change_by_hand():
    norm, linear = nn.LayerNorm(2), nn.Linear(2, 1)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([4.0, 1.0]))
        norm.bias.copy_(torch.tensor([3.0, 0.0]))
        linear.weight.copy_(torch.tensor([[1.0, 10.0]]))
        linear.bias.zero_()
    layer = QLinear(linear, {"weight_quantizer": nn.Identity(), "act_quantizer": nn.Identity()})
    x = torch.randn(5, 2)
    before = layer(norm(x))
    fold_into(norm, [layer], ChannelChange(torch.tensor([2.0, 0.5]).double(), torch.tensor([1.0, -1.0]).double()))
    assert norm.weight.tolist() == [2.0, 2.0] and norm.bias.tolist() == [1.0, 2.0]
    assert layer.weight.tolist() == [[2.0, 5.0]] and layer.bias.tolist() == [1.0 - 10.0]
    torch.testing.assert_close(layer(norm(x)), before)
