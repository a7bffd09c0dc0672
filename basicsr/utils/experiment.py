"""The folder of a run: its options, log, metrics, networks and training states, and how it continues."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from basicsr.utils import dist
from basicsr.utils.checkpoint import rng_state, save_torch, set_rng_state
from basicsr.utils.errors import CheckpointError, OptionsError, explained
from basicsr.utils.extras import usable
from basicsr.utils.files import append_line, atomic_path, complete_lines, remove_leftovers, write_json
from basicsr.utils.locks import claim
from basicsr.utils.logger import configure_logger, get_logger, run_log
from basicsr.utils.options import Options
from basicsr.utils.provenance import write_options
from basicsr.utils.recipe import recipe
from basicsr.utils.rounding import rounded
from basicsr.utils.stated_network import ENTRY, plain
from basicsr.utils.tracking import TensorBoard, Tracker, Trackers, WeightsAndBiases
from basicsr.utils.training_states import WhyNot, newest_usable, read_state, requested, require_same

StateDicts = Mapping[str, Mapping[str, torch.Tensor]]


class Experiment:
    """`experiments/<name>/` of one training run, locked for this process until `close`. Only the main process writes.

    Args:
        options: the resolved options.
        root: folder that holds `experiments/` and `tb_logger/`.
        auto_resume: continue from the latest training state of this run, if there is one. A run that exists and is not
            continued is renamed to `<name>_archived_<time>`, so nothing is overwritten.
        network_name: what networks are called in file names, `net_Q` or `net_g`.
        calibration_set: what the calibration set of the run is known by, with `sha256` of its pixels and `source`; None without one.
        stated: what network files say of themselves beside their tensors and the options of their network, by entry.

    Raises:
        CheckpointError: another process works on the run, or the folder cannot be set up.
    """

    def __init__(
        self,
        options: Options,
        root: Path,
        auto_resume: bool,
        network_name: str,
        calibration_set: Mapping[str, Any] | None = None,
        stated: Mapping[str, Any] | None = None,
    ) -> None:
        self.options = options
        self.calibration_set = calibration_set
        self._stated = {**(stated or {}), ENTRY: plain(options.network_g)}
        self.folder = root / "experiments" / options.name
        self.models = self.folder / "models"
        self.training_states = self.folder / "training_states"
        self.visualization = self.folder / "visualization"
        self.tb_folder = root / "tb_logger" / options.name
        self._network_name = network_name
        self._metrics_file = self.folder / "metrics.jsonl"
        self._losses_file = self.folder / "losses.jsonl"
        self._keeps_losses = True
        self._records: list[dict[str, Any]] = []
        self._trackers = Trackers([])
        self._lock = claim(self.folder) if dist.is_main() else None
        try:
            self._state: dict[str, Any] = {}
            self._unusable: list[str] = []
            self.resume_file = dist.broadcast_object(self._find_state(auto_resume) if dist.is_main() else None)
            if dist.is_main():
                self._prepare_folders()
        except BaseException:
            self.close()
            raise
        dist.barrier()

    def __enter__(self) -> "Experiment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find_state(self, auto_resume: bool) -> Path | None:
        """Read the state to continue from, if there is one, and return its file."""
        if self.options.path.resume_state:
            file = Path(self.options.path.resume_state)
            self._state = requested(file, self._network_of)
            return file
        if not auto_resume:
            return None
        found, self._state, self._unusable = newest_usable(self.training_states, self._network_of)
        return found

    def _network_of(self, state: Path) -> Path:
        """Return the network that belongs to a training state, which may be one of another run."""
        return state.parent.parent / self.models.name / self.network_file(state.stem).name

    def _prepare_folders(self) -> None:
        stamp = time.strftime("%Y%m%d_%H%M%S")
        with explained(CheckpointError, f"The folder '{self.folder}' cannot be set up"):
            if self.resume_file is None:
                for folder in (self.folder, self.tb_folder):
                    if folder.exists():
                        folder.rename(_free_name(folder.with_name(f"{folder.name}_archived_{stamp}")))
            remove_leftovers(self.folder)
            for folder in (self.models, self.training_states, self.visualization):
                folder.mkdir(parents=True, exist_ok=True)
            configure_logger(run_log(self.folder, "train", self.options.name), main_process=True)
            write_options(self.options, self.folder)
        self._trackers = self._trackers_of_options()

    def record(
        self, stage: str, iteration: int, dataset: str, values: Mapping[str, float | None], seconds: float
    ) -> None:
        """Append a line to metrics.jsonl, and hand the values on as scalars.

        Args:
            stage: `fp`, `calibrated`, `train` or `final`.
            iteration: iterations of training so far.
            dataset: name of the evaluated dataset.
            values: the mean of each metric by name, as `val:metrics` has them; None where it has none.
            seconds: time that the stage took so far.
        """
        if not dist.is_main():
            return
        line = {"stage": stage, "iter": iteration, "dataset": dataset, **values, "seconds": seconds}
        self._records.append(rounded(line))
        self._write_records()
        if stage != "final":
            known = {f"metrics/{dataset}/{key}": value for key, value in values.items() if value is not None}
            self.scalars(known, iteration)

    def _write_records(self) -> None:
        text = "".join(json.dumps(record) + "\n" for record in self._records)
        failure = f"'{self._metrics_file}' could not be written"
        with explained(CheckpointError, failure), atomic_path(self._metrics_file) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _continue_records(self, state: Mapping[str, Any]) -> None:
        """Take the records up to a state: those that it holds, or of another run and of earlier versions those in metrics.jsonl."""
        own = self.resume_file is not None and self.resume_file.parent == self.training_states
        known = state.get("records") if own else None
        if known is None and not self._metrics_file.exists():
            return
        self._records = [
            record
            for record in (self._read_records() if known is None else known)
            if record["iter"] <= state["iter"] and record["stage"] != "final"
        ]
        self._write_records()

    def _read_records(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self._metrics_file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"'{self._metrics_file}' cannot be read: {error}. Correct it or remove it, then continue."
            ) from error

    def record_losses(self, iteration: int, losses: Mapping[str, float], learning_rate: float) -> None:
        """Append a line to losses.jsonl; if it cannot be written, the run goes on without it.

        Args:
            iteration: iterations of training so far.
            losses: means since the last line, by name.
            learning_rate: of the first group of parameters.
        """
        if not (dist.is_main() and self._keeps_losses):
            return
        try:
            append_line(self._losses_file, json.dumps({"iter": iteration, "lr": learning_rate, "losses": dict(losses)}))
        except OSError as error:
            self._give_up_losses(error)

    def _forget_losses_after(self, iteration: int) -> None:
        """Take away what a run recorded after the checkpoint that it continues from, and will record again."""
        try:
            lines = complete_lines(self._losses_file)
            kept = [line for line in lines if json.loads(line)["iter"] <= iteration]
            with atomic_path(self._losses_file) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._give_up_losses(error)

    def _give_up_losses(self, error: Exception) -> None:
        """Go on without losses.jsonl: only the curve of the report needs it."""
        get_logger().warning("'%s' cannot be continued (%s); it ends here.", self._losses_file, error)
        self._keeps_losses = False

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file into the folder of the run."""
        if not dist.is_main():
            return
        with explained(CheckpointError, f"'{self.folder / name}' could not be written"):
            write_json(self.folder / name, content)

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Hand scalars by tag to TensorBoard and Weights & Biases; where one fails, the run goes on without it."""
        self._trackers.log(values, iteration)

    def _trackers_of_options(self) -> Trackers:
        """Return those that the options ask for; a run of Weights & Biases that is continued is found by wandb.json."""
        logger, file = self.options.logger, self.folder / "wandb.json"
        trackers: list[Tracker] = (
            [TensorBoard(self.tb_folder)] if logger.use_tb_logger and usable(["tensorboard"]) else []
        )
        if logger.wandb is not None and logger.wandb.project is not None:
            run_id = logger.wandb.resume_id or (_id_in(file) if self.resume_file is not None else None)
            config = self.options.model_dump(mode="json")
            try:
                tracker = WeightsAndBiases(logger.wandb.project, self.options.name, run_id, self.folder, config)
            except OptionsError as error:  # files of BasicSR and 2DQuant name a project that few readers of them have
                get_logger().warning("%s The run goes on without.", error)
            else:
                self.write_json(file.name, {"project": logger.wandb.project, "id": tracker.run_id})
                trackers.append(tracker)
        return Trackers(trackers)

    def close(self) -> None:
        """Close what takes scalars, and give up the lock."""
        self._trackers.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def network_file(self, label: int | str) -> Path:
        """Return the file of the network at an iteration, or of `latest` or `best`."""
        return self.models / f"{self._network_name}_{label}.pth"

    def resumed_network_file(self) -> Path:
        """Return the network that belongs to the training state, which may be one of another run (`path:resume_state`)."""
        return self._network_of(self.resume_file)

    def save_network(self, entries: StateDicts, label: int | str) -> None:
        """Save state dicts by entry, such as `params`, and what states their network; the file loads with weights_only=True."""
        if dist.is_main():
            content = {entry: {key: value.cpu() for key, value in state.items()} for entry, state in entries.items()}
            save_torch({**content, **self._stated}, self.network_file(label))

    def save(self, entries: StateDicts, iteration: int, state: Mapping[str, Any]) -> None:
        """Save the network and everything that a resumed run needs; the state file, written last, makes it valid."""
        if not dist.is_main():
            return
        self.save_network(entries, iteration)
        self.save_network(entries, "latest")
        calibrated = {} if self.calibration_set is None else {"calibration_set": dict(self.calibration_set)}
        content = {"iter": iteration, "recipe": recipe(self.options), "rng": rng_state(), **calibrated, **state}
        content["records"] = [dict(record) for record in self._records]
        save_torch(content, self.training_states / f"{iteration}.state")

    def load(self, why_not: WhyNot) -> dict[str, Any]:
        """Load the training state that this run continues from, and restore the random number generators and metrics.

        Args:
            why_not: see `WhyNot`.

        Returns:
            What `save` was given, with `iter`.

        Raises:
            CheckpointError: it is damaged, belongs to another recipe, or its network is missing.
        """
        for problem in self._unusable:
            get_logger().warning("%s An older state is taken: '%s'.", problem, self.resume_file)
        state = self._state or read_state(self.resume_file, self.resumed_network_file())
        self._state = {}
        require_same(state, self.options, self.calibration_set, self.resume_file, why_not)
        set_rng_state(state["rng"])
        if dist.is_main():
            self._continue_records(state)
        if dist.is_main() and self._losses_file.exists():
            self._forget_losses_after(state["iter"])
        get_logger().info("Continuing '%s' after iteration %d.", self.options.name, state["iter"])
        return state


def _id_in(file: Path) -> str | None:
    """Return the id of the run of Weights & Biases that a file names; None where there is no such file."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"'{file}' cannot be read: {error}. Remove it to begin a new run there, then continue."
        ) from error


def _free_name(path: Path) -> Path:
    """Return the path, or with a number where it is taken: a run may be archived twice in a second."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free
