"""The loop that all trained models share: step, log, validate, save; and stop without losing anything."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from tqdm import tqdm

from basicsr.evaluation.dataset_result import DatasetResult
from basicsr.training.contracts import Batch, Trainable
from basicsr.training.diagnostics import Diagnostics
from basicsr.training.not_finite import parameter_not_finite
from basicsr.training.schedules import TimedCosineSchedule
from basicsr.utils import dist
from basicsr.utils.errors import TrainingError, UserError
from basicsr.utils.experiment import Experiment
from basicsr.utils.logger import get_logger
from basicsr.utils.signals import StopRequest, deferred_signals


class TrainingLoop:
    """One run to `total_iter`, or to the end of its time where the schedule of the learning rate runs over time.

    Args:
        model: what is trained.
        experiment: where results go; holds the options of the run.
        validate: evaluates and records the model on the validation sets, given iteration and seconds; the first result
            selects the best iterate.
        state: the training state that the run continues from; None for a new run.

    Attributes:
        iteration: steps taken, earlier pieces of a resumed run included.
        best: value of the metric `val:best_metric`, iteration and dataset of the best iterate.
    """

    def __init__(
        self,
        model: Trainable,
        experiment: Experiment,
        validate: Callable[[int, float], list[DatasetResult]],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._options = experiment.options
        self._experiment = experiment
        self._validate = validate
        train = experiment.options.required_train()
        self._total = train.total_iter
        self.iteration = int(state["iter"]) if state else 0
        self._first = self._last_saved = self.iteration
        self.best: dict[str, Any] = dict(state["best"]) if state else {}
        self._seconds_before = float(state["seconds"]) if state else 0.0
        self._started = time.monotonic()
        minutes = train.piece_minutes
        self._piece_seconds = math.inf if minutes is None else 60 * minutes
        since_log = state.get("since_log") if state else None  # states of older versions have none
        self._losses: dict[str, torch.Tensor] = dict(since_log["losses"]) if since_log else {}
        self._since_log = int(since_log["steps"]) if since_log else 0

    @property
    def seconds(self) -> float:
        """Time spent in training, earlier pieces of a resumed run included."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def finished(self) -> bool:
        """Whether all iterations are done or all time is used."""
        timed = self._timed_schedule
        return self.iteration >= self._total or (timed is not None and timed.seconds_left == 0)

    @property
    def _timed_schedule(self) -> TimedCosineSchedule | None:
        schedule = self._model.scheduler
        return schedule if isinstance(schedule, TimedCosineSchedule) else None

    def run(self, batches: Iterator[Batch]) -> None:
        """Train on `batches`, whose first one belongs to iteration `self.iteration + 1`.

        Returns when the run is `finished`, or when the time of this piece is over (`train:piece_minutes`); a checkpoint
        has been saved in both cases.

        Raises:
            TrainingError: a loss is not finite; the last checkpoint is kept.
            DataError: an image cannot be used; a checkpoint has been saved, so that the run continues once it is mended.
            Interrupted: SIGINT or SIGTERM came; a checkpoint has been saved.
        """
        bar = tqdm(
            total=self._total, initial=self.iteration, desc="train", unit="it", disable=None if dist.is_main() else True
        )
        with bar, deferred_signals() as stop:
            while not self.finished:
                self._tell_the_time()
                self._add_losses(self._optimize(self._next(batches)))
                self.iteration += 1
                bar.update()
                if self._diagnostics is not None and self._diagnostics.is_due(self.iteration):
                    self._experiment.scalars(self._diagnostics.scalars(), self.iteration)
                if self._after_step(bar, stop):
                    return

    def _tell_the_time(self) -> None:
        """Let a schedule over time know the main process's time, so that all processes have the same learning rate."""
        if self._timed_schedule is not None:
            self._timed_schedule.seconds = dist.broadcast_object(self.seconds)

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            return next(batches)
        except UserError:
            if self.iteration > self._last_saved and dist.world_size() == 1:  # of several, the others may be elsewhere
                self._save()
                get_logger().info("Saved iteration %d; once mended, continue with --auto_resume.", self.iteration)
            raise

    def _optimize(self, batch: Batch) -> dict[str, torch.Tensor]:
        try:
            return self._model.optimize_parameters(batch)
        except TrainingError as error:
            raise TrainingError(f"Iteration {self.iteration + 1} failed; {self._kept}. {error}") from error

    @property
    def _kept(self) -> str:
        """What there is to continue from, for messages."""
        saved = self._last_saved
        return f"the checkpoint of iteration {saved} is kept" if saved else "no checkpoint has been saved"

    @property
    def _diagnostics(self) -> Diagnostics | None:
        """What the model has recorded of its training, if it is one that records."""
        return self._model.diagnostics

    def _after_step(self, bar: tqdm, stop: StopRequest) -> bool:
        """Log, validate and save what is due; return whether the time of this piece is over."""
        logger_options, last = self._options.logger, self.finished
        piece_is_over = not last and self._piece_is_over()
        stopping = dist.any_process(stop.signal_number is not None) or piece_is_over
        validating = self.iteration % self._options.val.val_freq == 0 or last
        saving = self.iteration % logger_options.save_checkpoint_freq == 0 or last
        if self.iteration % logger_options.print_freq == 0 or validating or saving:
            self._log(bar)
        if validating:
            self._run_validation(bar)
        if saving or stopping:
            self._save()
        if stopping:
            reason = "its time is over" if piece_is_over else "on request"
            get_logger().info("Stopped at iteration %d, %s; continue with --auto_resume.", self.iteration, reason)
            stop.raise_if_set()
        return piece_is_over

    def _piece_is_over(self) -> bool:
        if self._piece_seconds == math.inf:
            return False
        return dist.any_process(time.monotonic() - self._started >= self._piece_seconds)

    def _add_losses(self, losses: Mapping[str, torch.Tensor]) -> None:
        for name, loss in losses.items():
            self._losses[name] = self._losses.get(name, 0) + loss
        self._since_log += 1

    def _mean_losses(self) -> dict[str, float]:
        """Return the mean of each loss since the last line of the log, which must be finite."""
        means = {name: float(total) / self._since_log for name, total in self._losses.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss '{name}' is {value} at iteration {self.iteration}; {self._kept}. {self._model.remedy}"
                )
        return means

    def _log(self, bar: tqdm) -> None:
        means = self._mean_losses()
        self._losses, self._since_log = {}, 0
        learning_rate = self._model.optimizer.param_groups[0]["lr"]
        shown = {name: f"{value:.3e}" for name, value in means.items()}
        bar.set_postfix({**shown, **({self._options.val.best_metric: f"{self.best['last']:.3f}"} if self.best else {})})
        if means:
            losses = " ".join(f"{name} {text}" for name, text in shown.items())
            get_logger().info(
                "iteration %d/%d, lr %.2e, %s, %.0f s left",
                self.iteration,
                self._total,
                learning_rate,
                losses,
                self._left(),
            )
            self._experiment.record_losses(self.iteration, means, learning_rate)
            self._experiment.scalars(
                {**{f"losses/{k}": v for k, v in means.items()}, "lr": learning_rate}, self.iteration
            )

    def _left(self) -> float:
        """Return an estimate of the seconds that training still takes."""
        per_iteration = (time.monotonic() - self._started) / (self.iteration - self._first)
        left = (self._total - self.iteration) * per_iteration
        return left if self._timed_schedule is None else min(left, self._timed_schedule.seconds_left)

    def _run_validation(self, bar: tqdm) -> None:
        results = self._validate(self.iteration, self.seconds)
        if not results:
            return
        first, name = results[0], self._options.val.best_metric
        value, traits = first.means[name], first.traits[name]
        if value is None:
            return
        bar.set_postfix({name: traits.text(value)})
        if name not in self.best or traits.is_better(value, self.best[name]):
            self.best = {name: value, "iter": self.iteration, "dataset": first.name}
            self._experiment.save_network(self._model.checkpoint(), "best")
        self.best["last"] = value

    def _save(self) -> None:
        self._require_finite()
        self._mean_losses()
        since_log = {"losses": {name: loss.cpu() for name, loss in self._losses.items()}, "steps": self._since_log}
        own = {"best": dict(self.best), "seconds": self.seconds, "since_log": since_log}
        state = {**self._model.training_state(), **own}
        self._experiment.save(self._model.checkpoint(), self.iteration, state)
        self._last_saved = self.iteration
        if (
            self._diagnostics is not None and dist.is_main()
        ):  # with each checkpoint: a run that diverges has its figures
            self._diagnostics.draw(self._model.network, self._experiment.visualization)
        dist.barrier()

    def _require_finite(self) -> None:
        """Refuse to save a network that has diverged, so that the last checkpoint is always a usable one."""
        name = parameter_not_finite(self._model.network)
        if name is not None:
            raise TrainingError(
                f"The parameter '{name}' is not finite at iteration {self.iteration}; {self._kept}. {self._model.remedy}"
            )
