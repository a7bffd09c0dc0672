"""What a finished run leaves for the tables, and whether it is what the grid asks for now.

`<output>/runs/<run>.json` is written last and in one piece: a run is finished when it is there. It holds all that a row of the
tables says, so that tables can be made anew where experiments/ and results/ are gone.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from basicsr.data import folder_of
from basicsr.metrics.base import build_metrics
from basicsr.metrics.stated import metrics_in
from basicsr.quant.spec import FULL_PRECISION_BITS
from basicsr.sweep.digests import calibration_digest, calibration_file, start_digest, weights_digest
from basicsr.sweep.plan import PROTOCOL, Run
from basicsr.utils.errors import CheckpointError, OptionsError, explained
from basicsr.utils.files import write_json
from basicsr.utils.options import Options, by_path, metric_arguments
from basicsr.utils.recipe import options_of, recipe, was_begun_with
from basicsr.utils.registry import QUANTIZER_REGISTRY

ITERATE = "last"
_NOT_DATA = ("dataroot_gt", "dataroot_lq", "cache_budget_mb")
State = Literal["finished", "changed", "unfinished"]


@dataclass(frozen=True)
class Places:
    """The folders of a sweep.

    Attributes:
        root: folder that holds experiments/ and results/.
        output: folder of tables and records.
        logs: folder of the logs of the processes.
    """

    root: Path
    output: Path
    logs: Path

    def record(self, run: Run) -> Path:
        """Return the file that a finished run leaves."""
        return self.output / "runs" / f"{run.name}.json"

    def log(self, run: Run) -> Path:
        """Return the file with all that the processes of a run print."""
        return self.logs / f"{run.name}.log"

    def beginning(self, run: Run) -> Path:
        """Return the file that says what a training began with."""
        return self.logs / f"{run.name}.json"

    def lock(self, run: Run) -> Path:
        """Return the file that a process holds a lock on as long as it works on a run."""
        return self.logs / f"{run.name}.lock"

    def experiment(self, run: Run) -> Path:
        """Return the folder that training leaves."""
        return self.root / "experiments" / run.folder

    def results(self, run: Run) -> Path:
        """Return the file that the evaluation leaves."""
        return self.root / "results" / run.folder / "metrics.json"


def read_record(file: Path) -> dict[str, Any] | None:
    """Return a record, None where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The record '{file}' cannot be read: {error}. Remove it to have the run made anew."
        ) from error


def state_of(run: Run, places: Places) -> tuple[State, list[str]]:
    """Return whether a run is finished, and if it is not what the grid asks for, what differs.

    A benchmark that has come to the disk since then, or a metric that has come to the grid, makes a run unfinished: it is measured
    again, not trained again.
    """
    record = read_record(places.record(run))
    if record is None:
        return "unfinished", []
    differences = changes(record, run)
    if differences:
        return "changed", differences
    known = record["metrics"]["datasets"]
    fresh = [
        options["name"]
        for options in run.options.datasets_of("test").values()
        if options["name"] not in known and Path(folder_of(options)).is_dir()
    ]
    remarks = [f"not yet measured on {', '.join(fresh)}"] if fresh else []
    unknown = [name for name in _metrics_of(run.options) if name not in metrics_in(record["metrics"])]
    remarks += [f"not yet measured by {', '.join(unknown)}"] if unknown else []
    return ("unfinished" if remarks else "finished"), remarks


def _metrics_of(options: Options) -> list[str]:
    """Return the metrics that every network has a value of: those that compare with HR."""
    metrics = build_metrics(options.val, options.scale)
    return [name for name, metric in metrics.items() if metric.traits.compares == "hr"]


def changes(record: Mapping[str, Any], run: Run) -> list[str]:
    """Return what the recipe of a record and the one of a run differ in, as `section:key was ..., is now ...`."""
    try:
        options = options_of(record["options"])
    except OptionsError as error:
        return [f"its options cannot be read any more: {error}"]
    before, now = (by_path(_recipe(o, run.kind)) for o in (options, run.options))
    for before_or_now, other in ((before, options), (now, run.options)):
        before_or_now |= by_path(_common_metrics(other, options, run.options), "metric")
    differences = [
        f"{key} was {before.get(key)!r}, is now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    weights = weights_digest(run)
    if weights and record["full_precision"] and weights != record["full_precision"]["sha256"]:
        differences.append(f"the full-precision weights '{run.options.path.pretrain_network_FP}' are others")
    calibrated, crops = record.get("calibration_set"), calibration_digest(run)
    if crops and calibrated and crops != calibrated["file_sha256"]:
        differences.append(f"the calibration set '{calibration_file(run)}' is another than {calibrated['source']}")
    start, started = start_digest(run), (record.get("start") or {}).get("sha256")
    if start != started and (start is not None or run.start is None):
        differences.append(f"the quantized network that it starts from, {run.start or 'none'}, is another one")
    return differences


def _common_metrics(options: Options, *both: Options) -> dict[str, Any]:
    """Return the options of the metrics that the options of both have, completed, but for those that section `val` sets for all."""
    names = set.intersection(*(set(other.val.metrics) for other in both))
    neutral = options.val.model_copy(update={"crop_border": 0, "test_y_channel": True})
    return {
        name: {"type": neutral.metrics[name]["type"], **metric_arguments(neutral, options.scale, name)}
        for name in sorted(names)
    }


def _recipe(options: Options, kind: str) -> dict[str, Any]:
    """Return what decides the numbers in a row: recipe of the network, data sets by name, protocol of the evaluation."""
    chosen = recipe(options)
    if kind != "quantized":
        chosen = {key: chosen[key] for key in ("scale", "network_g") if kind == "full_precision" or key == "scale"}
    for dataset in options.datasets_of("test").values():
        chosen[f"test set {dataset['name']}"] = {k: v for k, v in dataset.items() if k not in (*_NOT_DATA, "name")}
    return {**chosen, "val": options.val.model_dump(include=PROTOCOL)}


def mark_beginning(run: Run, places: Places) -> None:
    """Write down which full-precision weights and calibration set a training begins with; options.yml of the run names files only."""
    write_json(places.beginning(run), _beginning(run))


def _beginning(run: Run) -> dict[str, str | None]:
    found = {"full_precision": weights_digest(run), "calibration_set": calibration_digest(run)}
    return found if run.start is None else {**found, "start": start_digest(run)}


def may_continue(run: Run, places: Places) -> bool:
    """Whether what training left, finished or not, was begun with the recipe and the weights that the run has now."""
    try:
        beginning = read_record(places.beginning(run))
    except CheckpointError:
        return False
    now = _beginning(run)
    as_begun = beginning is not None and {**now, **beginning} == now  # those of before name no calibration set
    return as_begun and was_begun_with(places.experiment(run), run.options)


def is_trained(run: Run, places: Places) -> bool:
    """Whether training has reached its end with the recipe of the run, so that only the evaluation is left."""
    lines = _metrics(run, places)
    finals = [
        line for line in lines if line["stage"] == "final" and line["iter"] == run.options.required_train().total_iter
    ]
    network = places.experiment(run) / "models" / "net_Q_latest.pth"
    return bool(finals) and network.is_file() and may_continue(run, places)


def _metrics(run: Run, places: Places) -> list[dict[str, Any]]:
    try:
        text = (places.experiment(run) / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return []


def write_record(run: Run, places: Places) -> dict[str, Any]:
    """Write and return the record of a run whose processes have ended well.

    Raises:
        CheckpointError: the results are not there, or the record cannot be written.
    """
    metrics = read_record(places.results(run))
    if metrics is None:
        raise CheckpointError(
            f"'{places.results(run)}' is missing although the run has ended well. Look at {places.log(run)}."
        )
    file = run.options.path.pretrain_network_FP
    iterations = run.options.required_train().total_iter if run.train else None
    record = {
        "run": run.name,
        "arch": run.arch,
        "method": run.method,
        "published": run.published,
        "seed": run.options.manual_seed,
        "iterate": ITERATE if run.train else None,
        "iterations": iterations,
        "share": run.share if iterations else None,
        "activation_ranges": activation_ranges(run.options),
        "seconds": _seconds(run, places),
        "squared_error": _squared_errors(run, places),
        "full_precision": None if run.kind == "bicubic" else {"file": file, "sha256": weights_digest(run)},
        "start": None if run.start is None else {"file": run.start, "sha256": start_digest(run)},
        "calibration_set": read_record(places.experiment(run) / "calibration_set.json") if run.train else None,
        "metrics": metrics,
        "options": run.options.model_dump(mode="json"),
    }
    with explained(CheckpointError, f"'{places.record(run)}' could not be written"):
        write_json(places.record(run), record)
    return record


def activation_ranges(options: Options) -> str | None:
    """Return `dynamic` where activation quantizers find their levels anew for each sample, else `static`; None without any."""
    if options.quantization is None or options.a_bits == FULL_PRECISION_BITS:
        return None
    quantizer = QUANTIZER_REGISTRY.get(
        options.quantization.activation_quantizer["type"], "quantization:activation_quantizer"
    )
    return "dynamic" if quantizer.dynamic else "static"


def _seconds(run: Run, places: Places) -> dict[str, float]:
    """Return how long calibration and training took, from metrics.jsonl."""
    stages = {"calibrated": "calibration", "final": "training"}
    lines = _metrics(run, places) if run.train else []
    return {stages[line["stage"]]: line["seconds"] for line in lines if line["stage"] in stages}


def _squared_errors(run: Run, places: Places) -> dict[str, float]:
    """Return geometric means of the squared errors of weight and of activation quantizers, where their calibrators know them.

    The ratio of such means of two runs is the mean ratio of their errors, layer by layer.
    """
    report: Any = read_record(places.experiment(run) / "calibration.json") if run.train else None
    logs: dict[str, list[float]] = {}
    for line in report or []:
        if line["mean_squared_error"]:
            role = "weights" if line["name"].endswith("weight_quantizer") else "activations"
            logs.setdefault(role, []).append(math.log(line["mean_squared_error"]))
    return {role: math.exp(sum(values) / len(values)) for role, values in logs.items()}
