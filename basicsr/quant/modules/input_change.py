"""Twins of layers behind what the layer does with its input first."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class GivesProjections(Protocol):
    """A twin of a split linear layer, which whoever needs its parts apart asks for them."""

    def projections(self, x: Tensor) -> list[Tensor]:
        """Return the output of each part for an input of the layer."""


class BehindChange(nn.Module):
    """A twin of a layer behind the factors or the rotation of its input.

    Args:
        change: applied to the input.
        twin: of the layer.
    """

    def __init__(self, change: nn.Module, twin: nn.Module) -> None:
        super().__init__()
        self.change, self.twin = change, twin

    def forward(self, x: Tensor) -> Tensor:
        """Return what the twin makes of the changed input."""
        return self.twin(self.change(x))


class SplitBehindChange(BehindChange):
    """The same for a twin that can be asked for its parts apart."""

    def projections(self, x: Tensor) -> list[Tensor]:
        """Return the output of each part for the changed input."""
        assert isinstance(self.twin, GivesProjections)  # or `behind_change` would have built another one
        return self.twin.projections(self.change(x))


def behind_change(change: nn.Module | None, twin: nn.Module) -> nn.Module:
    """Return a twin behind a change of its input; the twin itself where there is none."""
    if change is None:
        return twin
    return (SplitBehindChange if isinstance(twin, GivesProjections) else BehindChange)(change, twin)
