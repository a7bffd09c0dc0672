"""Which metrics a record holds, and what they state of themselves."""

from collections.abc import Mapping
from typing import Any

from basicsr.metrics.base import MetricTraits
from basicsr.utils.options import DEFAULT_METRICS as DEFAULT_OPTIONS
from basicsr.utils.registry import METRIC_REGISTRY

DEFAULT_METRICS: Mapping[str, MetricTraits] = {
    name: METRIC_REGISTRY.get(options["type"]).traits for name, options in DEFAULT_OPTIONS.items()
}
"""Metrics of records that do not say what they measured."""


def traits_of(record: Mapping[str, Any]) -> Mapping[str, MetricTraits]:
    """Return the metrics of a record, by name."""
    return metrics_in(record["metrics"])


def metrics_in(results: Mapping[str, Any]) -> Mapping[str, MetricTraits]:
    """Return the metrics of a metrics.json, by name."""
    stated = results.get("metrics")
    return DEFAULT_METRICS if stated is None else {name: MetricTraits(**entry) for name, entry in stated.items()}
