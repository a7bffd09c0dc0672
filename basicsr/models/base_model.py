"""What a model is: a network, how it is trained, and what a run saves of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.training.continuing import refusal
from basicsr.training.contracts import Batch
from basicsr.training.diagnostics import Diagnostics
from basicsr.utils.errors import CheckpointError
from basicsr.utils.options import Options
from basicsr.utils.registry import MODEL_REGISTRY


class Model(ABC):
    """A network and the method that trains it; all that the pipeline and the training loop use of one.

    A subclass takes the network, the options of the run and the device as its first three, positional-only arguments; the
    arguments that follow are its options in the section `train`. A method on a quantized network derives from `QuantizedModel`,
    which provides all but `optimize_parameters`.

    Attributes:
        network_name: what checkpoints are called: `net_g` of a network in full precision, `net_Q` of a quantized one.
        trains_on: `images` (random crops of `datasets:train`) or `crops` (the calibration set, see `data.crop_batches`).
        one_schedule: whether `train:total_iter` decides the rates of `scheduler` and nothing else, so that a training may become longer.
        remedy: what to do where training diverges, for messages.
        device: where the networks live.
        network: the network that is trained.
        optimizer: the optimiser of the next step; its learning rate is logged.
        scheduler: the schedule of the next step; None where the method has none that outlives a step.
        diagnostics: what is recorded of the training, for log and figures; None by default.
    """

    network_name: ClassVar[str]
    trains_on: ClassVar[Literal["images", "crops"]] = "images"
    one_schedule: ClassVar[bool] = False
    remedy: str = "Lower the learning rate."
    device: torch.device
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    diagnostics: Diagnostics | None = None

    @abstractmethod
    def __init__(self, network: nn.Module, options: Options, device: torch.device, /) -> None:
        """Take the network with its weights, the options of the run and the device."""

    @property
    def needs_originals(self) -> bool:
        """Whether batches of images must hold `gt`; by default they must."""
        return True

    def prepare(self, crops: Tensor) -> None:  # noqa: B027 -- most models need not
        """Take and check the calibration crops (N, 3, h, w) before any long work; called for models that train on them.

        By default nothing is kept: `optimize_parameters` gets crops and their numbers.
        """

    @abstractmethod
    def optimize_parameters(self, batch: Batch, /) -> dict[str, Tensor]:
        """Take one step on a batch; return the losses by name, detached.

        Args:
            batch: `lq` and `gt` of images, or `lq` and `index` of calibration crops.

        Raises:
            TrainingError: a loss is not finite.
        """

    @abstractmethod
    def network_for_evaluation(self) -> nn.Module:
        """Return the network to measure, in evaluation mode."""

    @abstractmethod
    def checkpoint(self) -> dict[str, dict[str, Tensor]]:
        """Return what a network file holds: state dicts by entry, such as `params`."""

    def stated(self) -> dict[str, dict[str, Any]]:
        """Return what a network file says of itself beside its tensors and the options of its network, by entry; nothing by default."""
        return {}

    @abstractmethod
    def training_state(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the network: the state of optimiser and schedule."""

    @abstractmethod
    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the network from its file, and what `training_state` returned."""

    def why_not_continue(
        self, before: Mapping[str, Any], now: Mapping[str, Any], iteration: int, allowed: bool
    ) -> str | None:
        """Return why a training does not go on with another length or schedule, with the remedy; None where it does.

        Args:
            before: section `train` that it began with.
            now: section `train` that it is to go on with.
            iteration: iterations so far.
            allowed: whether the user wants it in any case (`train:allow_new_length`).
        """
        return refusal(before, now, iteration, one_schedule=self.one_schedule, allowed=allowed)


def restore(model: Model, network_file: Path, state: Mapping[str, Any]) -> None:
    """Bring a model to where its training was saved.

    Raises:
        CheckpointError: network or state do not fit the model.
    """
    try:
        model.load(network_file, state)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:  # of torch's optimisers
        raise CheckpointError(
            f"The training state beside the network '{network_file}' does not fit the model '{type(model).__name__}': {error}. It was "
            "written by another version of the program or edited; start the run anew."
        ) from error


def model_class_of(options: Options) -> type[Model]:
    """Return the class that `model_type` names; one that quantizes is a `QuantizedModel`."""
    return MODEL_REGISTRY.get(options.model_type, "model_type")
