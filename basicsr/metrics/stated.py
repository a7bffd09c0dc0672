"""What results state of the metrics that they hold: the traits in metrics.json, and those of results that state none."""

from collections.abc import Mapping
from typing import Any

from basicsr.metrics.base import MetricTraits
from basicsr.utils.options import DEFAULT_METRICS as DEFAULT_OPTIONS
from basicsr.utils.registry import METRIC_REGISTRY

DEFAULT_METRICS: Mapping[str, MetricTraits] = {
    name: METRIC_REGISTRY.get(options["type"]).traits for name, options in DEFAULT_OPTIONS.items()
}
"""Metrics of results that do not say what they measured."""


def metrics_in(results: Mapping[str, Any]) -> Mapping[str, MetricTraits]:
    """Return the metrics of a metrics.json, by name."""
    stated = results.get("metrics")
    return DEFAULT_METRICS if stated is None else {name: MetricTraits(**entry) for name, entry in stated.items()}


def metrics_of_options(options: Mapping[str, Any]) -> Mapping[str, MetricTraits]:
    """Return the metrics that the options of a run name, by name; those of a file that is not loaded here are left out."""
    named = (options.get("val") or {}).get("metrics")
    if named is None:
        return DEFAULT_METRICS
    known = set(METRIC_REGISTRY.names())
    return {name: METRIC_REGISTRY.get(entry["type"]).traits for name, entry in named.items() if entry["type"] in known}
