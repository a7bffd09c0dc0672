"""Who reads the output of a module."""

import torch
from torch import nn

from basicsr.quant.observe.readers import find_readers


class Branches(nn.Module):
    """Norms whose outputs go to layers alone, to a skip connection as well, through a view, and nowhere; a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.alone, self.skipped, self.viewed, self.unread, self.joined = (nn.LayerNorm(4) for _ in range(5))
        self.a, self.b, self.c, self.d, self.twice = (nn.Linear(4, 4) for _ in range(5))

    def forward(self, x):
        y = self.alone(x)
        x = self.a(y) + self.b(y)
        y = self.skipped(x)
        x = y + self.c(y)
        x = self.d(self.viewed(x).view(-1, 4))
        self.unread(x)
        x = torch.cat([self.twice(self.joined(x)), self.twice(x)])
        return x.flatten()[: x.shape[0]]


def test_readers_are_told_apart():
    network = Branches()
    norms = {name: module for name, module in network.named_children() if isinstance(module, nn.LayerNorm)}
    layers = {name: module for name, module in network.named_children() if isinstance(module, nn.Linear)}
    found = find_readers(network, norms, layers, torch.rand(3, 4))
    assert {name: readers.layers for name, readers in found.items()} == {
        "alone": ["a", "b"],
        "skipped": ["c"],
        "viewed": [],
        "unread": [],
        "joined": ["twice"],
    }
    assert {name: readers.others for name, readers in found.items() if readers.others} == {
        "skipped": ["add"],
        "viewed": ["view"],
    }
    assert {name: readers.shared for name, readers in found.items() if readers.shared} == {"joined": ["twice"]}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
