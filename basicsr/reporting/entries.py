"""Reading what `train.py` and `test.py` left: one entry for each line that a table of methods gets."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from basicsr.metrics.base import MetricTraits
from basicsr.metrics.layer_costs import FULL_PRECISION_BITS
from basicsr.metrics.stated import DEFAULT_METRICS, metrics_in, metrics_of_options
from basicsr.utils.errors import DataError
from basicsr.utils.files import complete_lines, real_path
from basicsr.utils.options.schema import RESERVED_KEYS

FULL_PRECISION = "FP"
_STAGES = {"fp": FULL_PRECISION, "calibrated": "{} calibrated", "final": "{}"}
_PROTOCOL = ("crop_border", "test_y_channel", "pad", "self_ensemble")


@dataclass(frozen=True)
class Training:
    """What a training left in `experiments/<name>/`.

    Attributes:
        folder: the folder.
        history: lines of metrics.jsonl, in their order; empty where there is none.
        losses: lines of losses.jsonl, each with `iter`, `lr` and `losses` by name; empty where there is none.
        sensitivity: content of sensitivity.json, a layer each, that with the largest error first; empty where there is none.
    """

    folder: Path
    history: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[Mapping[str, Any]] = ()
    sensitivity: Sequence[Mapping[str, Any]] = ()

    @property
    def seconds(self) -> float | None:
        """Time of calibration and training together; None where neither was recorded."""
        by_stage = {line["stage"]: line["seconds"] for line in self.history if line["stage"] in ("calibrated", "final")}
        return sum(by_stage.values()) if by_stage else None


@dataclass(frozen=True)
class Entry:
    """One network as it was measured.

    Attributes:
        folder: the folder that was read.
        method: label of the method.
        network: name of the architecture.
        scale: scale factor.
        w_bits: bits of weights, 32 in full precision.
        a_bits: bits of activations, 32 in full precision.
        datasets: means of metrics by name, for each dataset; infinite ones are `math.inf`, None is no value.
        images: metrics by name, for each image of each dataset; empty where they are not known.
        counted: for each dataset, the number of images in the mean, of metrics that have no value for some image.
        traits: what the metrics state of themselves, by name; those that state nothing are not in it.
        dynamic: activations have ranges that are computed anew for each sample.
        protocol: options of the evaluation that change its numbers.
        parameters: number of parameters; None where it is not known.
        size: bytes of the network as counted; None where they are not known.
        options: the resolved options; empty where there is no options.yml.
        provenance: versions and command; empty where they are not known.
        pictures: folder with a folder of output pictures for each dataset; None where none can have been saved.
        activations: content of activations.json; None where there is none.
        training: what the training of the network left; None where it is not on disk or there was none.
    """

    folder: Path
    method: str
    network: str
    scale: int
    w_bits: int
    a_bits: int
    datasets: Mapping[str, Mapping[str, float | None]]
    images: Mapping[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    counted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    traits: Mapping[str, MetricTraits] = field(default_factory=lambda: DEFAULT_METRICS)
    dynamic: bool = False
    protocol: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    size: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    pictures: Path | None = None
    activations: Mapping[str, Any] | None = None
    training: Training | None = None

    @property
    def quantized(self) -> bool:
        """Whether anything has fewer than 32 bits."""
        return min(self.w_bits, self.a_bits) < FULL_PRECISION_BITS

    @property
    def bits(self) -> str:
        """Bits of weights and activations, such as `4/8`."""
        return f"{self.w_bits}/{self.a_bits}"


def read_folder(folder: Path) -> list[Entry]:
    """Read `results/<name>/`, which gives one entry, or `experiments/<name>/`, which gives one for each stage of the run.

    Raises:
        DataError: there is no such folder, it holds neither metrics.json nor metrics.jsonl, or a file of it is damaged.
    """
    metrics = read_json(folder / "metrics.json")
    if metrics is not None:
        return [entry_of_results(folder, metrics)]
    training = read_training(folder)
    if not training.history:
        if not folder.is_dir():
            raise DataError(f"There is no folder '{folder}'. Name a folder of results/ or of experiments/.")
        raise DataError(
            f"The folder '{folder}' holds neither metrics.json, which basicsr/test.py leaves, nor metrics.jsonl, which "
            "basicsr/train.py leaves. Name a folder of results/ or of experiments/."
        )
    return _entries_of_training(training)


def entry_of_results(folder: Path, metrics: Mapping[str, Any]) -> Entry:
    """Return the entry of an evaluation.

    Args:
        folder: folder of the evaluation, where pictures, options and activations are looked for.
        metrics: what its metrics.json holds.

    Raises:
        DataError: the metrics lack what every evaluation has, or another file of the folder is damaged.
    """
    complexity = metrics.get("complexity") or {}
    try:
        return Entry(
            folder=folder,
            method=str(metrics["method"]),
            network=str(metrics["network"]),
            scale=int(metrics["scale"]),
            w_bits=int(metrics["w_bits"]),
            a_bits=int(metrics["a_bits"]),
            datasets={name: _measured(metrics, means, means) for name, means in metrics["datasets"].items()},
            images={
                name: {image: _measured(metrics, means, values) for image, values in means.get("images", {}).items()}
                for name, means in metrics["datasets"].items()
            },
            counted={name: means.get("counted") or {} for name, means in metrics["datasets"].items()},
            traits=metrics_in(metrics),
            dynamic=metrics.get("activation_ranges") == "dynamic",
            protocol=metrics.get("protocol") or {},
            parameters=complexity.get("parameters"),
            size=complexity.get("bytes"),
            options=_options(folder)[0],
            provenance=metrics.get("provenance") or {},
            pictures=folder / "visualization",
            activations=read_json(folder / "activations.json"),
            training=_training_of(folder, metrics.get("weights")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"'{folder / 'metrics.json'}' is not what basicsr/test.py writes: {type(error).__name__} {error}. Evaluate again."
        ) from error


def _measured(
    metrics: Mapping[str, Any], means: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return the metrics of a dataset or an image by name.

    Files hold null for a value that is absent and for one that is infinite. Those that state their metrics count the values
    where some are absent, so null is infinite in all others; in older files it is nothing that could be told.
    """
    absent = means.get("counted") or {}
    infinite = "metrics" in metrics
    return {
        name: math.inf if value is None and infinite and name not in absent else value
        for name, value in metric_values(values).items()
    }


def metric_values(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics among the values of a dataset, an image or a line of metrics.jsonl, by name."""
    return {
        key: value
        for key, value in values.items()
        if key not in RESERVED_KEYS
        and (value is None or (isinstance(value, int | float) and not isinstance(value, bool)))
    }


def read_training(folder: Path) -> Training:
    """Read what a training left; empty where there is nothing.

    Raises:
        DataError: a file is damaged.
    """
    history, losses = (_read_lines(folder / name) for name in ("metrics.jsonl", "losses.jsonl"))
    return Training(folder, history, losses, read_json(folder / "sensitivity.json") or ())


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; None where there is no such file.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Remove it, or make it anew.") from error


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON lines file; a last one without its end belongs to a run that was killed and is left out."""
    try:
        return [json.loads(line) for line in complete_lines(file)]
    except (OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Remove it, or make it anew.") from error


def _options(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the resolved options of a folder and their provenance; empty where there are none."""
    file = folder / "options.yml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Remove it, or make it anew.") from error
    if not isinstance(content, dict):
        raise DataError(f"'{file}' holds no options but {type(content).__name__}. Remove it, or make it anew.")
    return content, content.pop("provenance", None) or {}


def _training_of(folder: Path, weights: str | None) -> Training | None:
    """Return the training that made the weights of an evaluation, if it is one of `experiments/` and on disk.

    The path of the weights is relative to where the evaluation ran, mostly the folder that holds `results/`.
    """
    if not weights:
        return None
    for root in (Path(), real_path(folder).parent.parent):
        experiment = (root / weights).parent.parent
        if (experiment / "metrics.jsonl").is_file():
            return read_training(experiment)
    return None


def _entries_of_training(training: Training) -> list[Entry]:
    """Return full precision, the calibrated and the final network of a run, as far as it has come."""
    folder = training.folder
    options, provenance = _options(folder)
    quantization = options.get("quantization") or {}
    calibration = ((options.get("calibration") or {}).get("activations") or {}).get("type", "")
    method = options.get("method") or (calibration if quantization else FULL_PRECISION)
    quantization_map = read_json(folder / "quantization_map.json") or {}
    bits = {
        key: (quantization.get(key) or options.get("bit") or FULL_PRECISION_BITS)
        if quantization
        else FULL_PRECISION_BITS
        for key in ("w_bits", "a_bits")
    }
    entries = []
    for stage, label in _STAGES.items():
        datasets = {line["dataset"]: metric_values(line) for line in training.history if line["stage"] == stage}
        if not datasets:
            continue
        quantized = stage != "fp"
        entries.append(
            Entry(
                folder=folder,
                method=label.format(method),
                network=str((options.get("network_g") or {}).get("type", "unknown network")),
                scale=int(options.get("scale", 0)),
                **(bits if quantized else dict.fromkeys(bits, FULL_PRECISION_BITS)),
                datasets=datasets,
                traits=metrics_of_options(options),
                dynamic=quantized and quantization_map.get("activation_ranges") == "dynamic",
                protocol={key: value for key, value in (options.get("val") or {}).items() if key in _PROTOCOL},
                options=options,
                provenance=provenance,
                pictures=folder / "visualization" if stage == "final" else None,
                training=training,
            )
        )
    return entries
