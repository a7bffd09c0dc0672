"""From records to rows: one for each run and dataset, with its distance to full precision and to what was published."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basicsr.metrics.base import MetricTraits
from basicsr.metrics.stated import DEFAULT_METRICS, metrics_in
from basicsr.sweep.correlation import error_correlation
from basicsr.sweep.plan import BICUBIC, FULL_PRECISION
from basicsr.sweep.published import PublishedResults
from basicsr.utils.files import atomic_path

BY_OUTPUT, BY_GRADIENT, FOLDED, FITTED = " by output", " by gradient", " folded", " fitted"
"""End the name of a search whose bounds are then chosen by the output of their module or of the network, or whose weights are fitted."""

Row = dict[str, Any]
COLUMNS = (
    "arch", "method", "scale", "w_bits", "a_bits", "seed", "dataset", "images", "psnr", "ssim", "fidelity",
    "psnr_change", "error_correlation", "published_psnr", "published_psnr_change", "published_source", "coverage", "activation_ranges",
    "activation_granularity", "weight_granularity", "activation_calibrator", "activation_search", "weights_error",
    "activations_error", "iterate", "iterations", "batch_size", "share", "calibration_seconds", "training_seconds", "bytes",
    "crop_border", "on_y", "pad", "self_ensemble", "full_precision", "commit", "processor", "threads", "run",
)  # fmt: skip
DIGITS = {"psnr_change": 4, "error_correlation": 4, "published_psnr_change": 2}


def rows_of(records: Sequence[Mapping[str, Any]], published: PublishedResults) -> list[Row]:
    """Return a row for each record and dataset.

    Args:
        records: what runs left, see records.py.
        published: where published counterparts are looked up.

    Returns:
        Mappings with the keys `COLUMNS`, `published`, the method's name among the published results, `image_values`, those of
        each image, `values`, the mean of each metric by name, and `traits`, what these metrics state of themselves. A value that does not apply is None. `psnr_change` is the PSNR less that of the full-precision network on
        the same dataset; correlation.py explains `error_correlation`.
    """
    rows = [_row(record, name, means) for record in records for name, means in record["metrics"]["datasets"].items()]
    full = {_place(row): row for row in rows if row["method"] == FULL_PRECISION}
    for row in rows:
        reference = full.get(_place(row))
        if reference is not None and row["method"] not in (FULL_PRECISION, BICUBIC):
            if None not in (row["psnr"], reference["psnr"]):
                row["psnr_change"] = row["psnr"] - reference["psnr"]
            row["error_correlation"] = error_correlation(row["image_values"], reference["image_values"])
        value = published.find(row)
        if value is not None:
            row |= {
                "published_psnr": value.psnr,
                "published_psnr_change": None if row["method"] == FULL_PRECISION else value.change,
                "published_source": value.source,
            }
    return rows


def _place(row: Row) -> tuple[Any, ...]:
    return row["arch"], row["scale"], row["dataset"]


def _row(record: Mapping[str, Any], dataset: str, means: Mapping[str, Any]) -> Row:
    metrics = record["metrics"]
    quantization = record["options"]["quantization"] or {}
    train = record["options"]["train"] if record["iterations"] else {}
    calibration = record["options"]["calibration"] if quantization else {}
    activations = calibration.get("activations", {})
    errors = record.get("squared_error", {})
    protocol = metrics["protocol"]
    traits = metrics_in(record["metrics"])
    values = {
        "arch": record["arch"],
        "method": record["method"],
        "published": record["published"],
        "scale": metrics["scale"],
        "w_bits": metrics["w_bits"],
        "a_bits": metrics["a_bits"],
        "seed": record["seed"] if quantization else None,
        "dataset": dataset,
        "images": len(means["images"]),
        "image_values": means["images"],
        **{name: means.get(name) for name in DEFAULT_METRICS},
        "values": {name: means.get(name) for name in traits},
        "traits": traits,
        "coverage": metrics["coverage"],
        "activation_ranges": record["activation_ranges"],
        "activation_granularity": quantization.get("activation_granularity"),
        "weight_granularity": quantization.get("weight_granularity"),
        "activation_calibrator": activations.get("type"),
        "activation_search": _search(calibration),
        "weights_error": errors.get("weights"),
        "activations_error": errors.get("activations"),
        "iterate": record["iterate"],
        "iterations": record["iterations"],
        "batch_size": train.get("batch_size"),
        "share": record.get("share"),
        "calibration_seconds": record["seconds"].get("calibration"),
        "training_seconds": record["seconds"].get("training"),
        "bytes": metrics.get("complexity", {}).get("bytes"),
        "crop_border": protocol["crop_border"],
        "on_y": protocol["test_y_channel"],
        "pad": protocol.get("pad"),
        "self_ensemble": protocol.get("self_ensemble", False),
        "full_precision": (record["full_precision"] or {}).get("file"),
        **{key: metrics["provenance"].get(key) for key in ("commit", "processor", "threads")},
        "run": record["run"],
    }
    return {**dict.fromkeys(COLUMNS), **values}


def _search(calibration: Mapping[str, Any]) -> str | None:
    """Return how activations were searched, as one word or two for what is compared."""
    activations = calibration.get("activations", {})
    search = activations.get("search") or activations.get("selection")
    steps = (("weight_fit", FITTED), ("fold_norms", FOLDED), ("by_gradient", BY_GRADIENT), ("by_output", BY_OUTPUT))
    suffix = next((name for option, name in steps if calibration.get(option)), "")
    return f"{search}{suffix}" if search else None


def metrics_of(rows: Sequence[Row]) -> dict[str, MetricTraits]:
    """Return the metrics that some row has, by name: those that every run has by default first."""
    found = {name: traits for row in rows for name, traits in row["traits"].items()}
    first = [name for name in DEFAULT_METRICS if name in found]
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write rows as CSV: one column for each of `COLUMNS`, and at the end for each further metric, `metric_<name>`."""
    text = io.StringIO()
    further = [name for name in metrics_of(rows) if name not in DEFAULT_METRICS]
    writer = csv.DictWriter(
        text, [*COLUMNS, *(f"metric_{name}" for name in further)], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        rounded = {key: round(row[key], digits) for key, digits in DIGITS.items() if row[key] is not None}
        writer.writerow({**row, **rounded, **{f"metric_{name}": row["values"].get(name) for name in further}})
    with atomic_path(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
