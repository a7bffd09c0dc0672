"""Where the scalars of a run go: TensorBoard's file, and Weights & Biases where the options ask for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import require
from basicsr.utils.logger import get_logger


class Tracker(Protocol):
    """Takes scalars by tag and iteration."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What is raised where it cannot take them."""

    @property
    def name(self) -> str:
        """What and where it is, for messages."""

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Take scalars by tag."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """TensorBoard's file, which is opened with the first scalars: from their iteration on it replaces those of earlier files.

    Args:
        folder: where the file is made.
    """

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, folder: Path) -> None:
        self.name = f"TensorBoard's file in '{folder}'"
        self._folder = folder
        self._writer: Any = None

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Write scalars by tag."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self._writer = SummaryWriter(str(self._folder), purge_step=iteration)
        for key, value in values.items():
            self._writer.add_scalar(key, value, iteration)

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, with the tags of TensorBoard; the iteration is its step.

    A run that is continued repeats the iterations after its checkpoint. Of those the first values stay, which are the same.

    Args:
        project: its project there.
        name: name of the run.
        run_id: of the run to continue; None for a new one.
        folder: where the package keeps its files, in `wandb/`.
        config: the options of the run.

    Attributes:
        run_id: by which the run is continued.

    Raises:
        OptionsError: the package is not installed, or cannot be used, such as without a login.
    """

    def __init__(self, project: str, name: str, run_id: str | None, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = require("wandb")
        self.errors: tuple[type[Exception], ...] = (wandb.Error, OSError)
        self.name = f"the run of Weights & Biases in the project '{project}'"
        resume = None if run_id is None else "allow"
        try:
            self._run = wandb.init(
                project=project, name=name, id=run_id, resume=resume, dir=str(folder), config=dict(config)
            )
        except self.errors as error:
            raise OptionsError(
                f"Weights & Biases cannot be used: {str(error).rstrip('.')}. Log in with `wandb login`, set WANDB_MODE=offline to "
                "keep it on this machine, or take logger:wandb away."
            ) from error
        self.run_id: str = self._run.id

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Send scalars by tag."""
        self._run.log(dict(values), step=iteration)

    def close(self) -> None:
        """Send what is left and end the run."""
        self._run.finish()


class Trackers:
    """All trackers of a run. One that fails is told and given up: metrics.jsonl and losses.jsonl hold what they show."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Hand scalars to all of them."""
        for tracker in list(self._trackers):
            try:
                tracker.log(values, iteration)
            except tracker.errors as error:
                self._give_up(tracker, error)

    def close(self) -> None:
        """End all of them."""
        for tracker in list(self._trackers):
            try:
                tracker.close()
            except tracker.errors as error:
                self._give_up(tracker, error)
        self._trackers = []

    def _give_up(self, tracker: Tracker, error: Exception) -> None:
        name = tracker.name[0].upper() + tracker.name[1:]
        get_logger().warning("%s cannot be written (%s); it ends here.", name, error)
        self._trackers.remove(tracker)
