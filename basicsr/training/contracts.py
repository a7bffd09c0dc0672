"""What the training loop needs of what it trains; `models.base_model.Model` provides it."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.training.diagnostics import Diagnostics

Batch = Mapping[str, torch.Tensor]


class Trainable(Protocol):
    """A network that learns, with its optimiser and its schedule."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained: the loop refuses to save parameters that are not finite."""

    @property
    def remedy(self) -> str:
        """What to do where training diverges, for messages."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the next step, whose learning rate is logged."""

    @property
    def scheduler(self) -> LRScheduler | None:
        """The schedule of the next step; the loop tells one over time how much has passed."""

    @property
    def diagnostics(self) -> Diagnostics | None:
        """What has been recorded of the training, for log and figures; None for a model that does not record."""

    def optimize_parameters(self, batch: Batch, /) -> dict[str, torch.Tensor]:
        """Take one step; return the losses."""

    def checkpoint(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return what a network file holds: state dicts by entry."""

    def training_state(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the network."""
