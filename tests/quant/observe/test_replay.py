"""Passes that begin where something changes give what whole passes give."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.observe.capture import bypass_quantizers
from basicsr.quant.observe.replay import KeptPass
from tests import tiny


class Wrapped(nn.Module):
    """A module with another one inside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Scaled(nn.Module):
    def __init__(self, factor, calls):
        super().__init__()
        self.factor, self.calls, self.child = factor, calls, nn.Identity()

    def forward(self, x):
        self.calls.append(self.factor)
        return self.child(x * self.factor)


@pytest.mark.parametrize("architecture", tiny.NETWORKS)
def test_a_change_at_any_quantizer_gives_the_output_of_a_whole_pass(architecture):
    torch.manual_seed(0)
    network = build_network({"type": architecture, "upscale": 2, **tiny.NETWORKS[architecture]}).eval()
    insert_quantizers(network, "full", 4, 4)
    quantizers = [quantizer for _, quantizer in named_quantizers(network)]
    with torch.no_grad(), bypass_quantizers(network):
        kept = KeptPass(network, x := torch.rand(2, 3, 32, 32))  # of SwinIR more windows than it computes at once
        exactly = {"rtol": 0, "atol": 1e-6}
        torch.testing.assert_close(kept.output, network(x), **exactly)
        for quantizer in quantizers:
            with quantizer.register_forward_hook(lambda _module, _inputs, output: (output * 4).round() / 4):
                torch.testing.assert_close(kept.changed_at([quantizer]), network(x), **exactly)
        torch.testing.assert_close(kept.output, network(x), **exactly)  # nothing is left behind
    assert not any("forward" in vars(module) for module in network.modules())


def test_what_had_ended_is_not_computed_again():
    calls = []
    network = nn.Sequential(*(Scaled(factor, calls) for factor in (2.0, 3.0, 5.0, 7.0)))
    kept = KeptPass(network, torch.ones(1))
    calls.clear()
    network[2].factor = 11.0
    assert float(kept.changed_at([network[2]])) == 2 * 3 * 11 * 7
    assert calls == [11.0, 7.0]
    calls.clear()
    network[1].factor = 13.0  # the earlier one of two
    assert float(kept.changed_at([network[2], network[1]])) == 2 * 13 * 11 * 7
    assert calls == [13.0, 11.0, 7.0]


def test_a_module_that_is_called_twice_ends_with_its_last_call():
    calls = []
    shared, last = Scaled(2.0, calls), Scaled(3.0, calls)
    network = nn.Sequential(shared, Scaled(5.0, calls), shared, last)
    kept = KeptPass(network, torch.ones(1))
    network[1].factor, calls[:] = 7.0, []
    assert float(kept.changed_at([network[1]])) == 2 * 7 * 2 * 3
    assert calls == [2.0, 7.0, 2.0, 3.0]
    last.factor, network[1].factor, calls[:] = 1.0, 5.0, []
    assert float(kept.changed_at([last])) == 2 * 5 * 2
    assert calls == [1.0]


class InPlace(nn.Module):
    """Adds up in place, and hands on a tensor that a later module changes in place."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = Wrapped(nn.Conv2d(3, 3, 1)), Wrapped(nn.ReLU(inplace=True)), Scaled(2.0, [])

    def forward(self, x):
        y = self.first(x)
        z = self.act(y)
        y += 1  # of what the activation has changed
        return self.second(z) + y


def test_changes_in_place_are_seen():
    torch.manual_seed(0)
    network = InPlace()
    kept = KeptPass(network, x := torch.rand(1, 3, 4, 4))
    network.second.factor = 3.0
    with torch.no_grad():
        assert torch.equal(kept.changed_at([network.second]), network(x))
        assert torch.equal(kept.changed_at([network.second]), network(x)), "what is kept stays as it was"


def test_what_takes_no_part_changes_nothing():
    network = nn.Sequential(Scaled(2.0, []))
    kept = KeptPass(network, torch.ones(1))
    assert kept.changed_at([nn.Identity()]) is kept.output
