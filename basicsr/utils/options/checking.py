"""What the schema alone cannot check: components against their constructors, and sections that need each other."""

from typing import Any

from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.options.names import FolderName
from basicsr.utils.options.schema import Options, TrainOptions, ValOptions
from basicsr.utils.options.section import Component
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    CALIBRATOR_REGISTRY,
    DATASET_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    QMODULE_REGISTRY,
    QUANTIZER_REGISTRY,
    Registry,
)
from basicsr.utils.signature import validate_fields, validate_model
from basicsr.utils.tiles import default_overlap

_WINDOW = 8  # LR pixels, of which tiles and their overlaps are multiples where the network has windows
_FULL_PRECISION_BITS = 32


def check_components(options: Options) -> None:
    """Check what the schema alone cannot: the components of the sections, and sections that need each other."""
    if "upscale" in ARCH_REGISTRY.schema(options.network_g.get("type"), "network_g:type").model_fields:
        upscale = options.network_g.setdefault("upscale", options.scale)
        if upscale != options.scale:
            raise OptionsError(
                f"Option 'network_g:upscale' is {upscale}, but 'scale' is {options.scale}. Leave out 'upscale'."
            )
    _complete(ARCH_REGISTRY, options.network_g, "network_g")
    for key, dataset in options.datasets.items():
        _complete(DATASET_REGISTRY, dataset, f"datasets:{key}")
    _check_dataset_names(options)
    _check_metrics(options)
    _fit_overlap(options.val)
    check_method(options)


def check_method(options: Options) -> None:
    """Check the components of quantization, calibration and training, and fill in their defaults."""
    if options.quantization is not None:
        _check_average(options.quantization.average_bits, options.required_bits())
        rules = options.quantization.coverage
        for index, rule in enumerate(() if isinstance(rules, str) else rules):
            QMODULE_REGISTRY.check_name(rule.type, f"quantization:coverage:{index}:type")
        for key in ("weight_quantizer", "activation_quantizer"):
            _complete(QUANTIZER_REGISTRY, getattr(options.quantization, key), f"quantization:{key}")
        _complete(CALIBRATOR_REGISTRY, options.calibration.weights, "calibration:weights")
        _complete(CALIBRATOR_REGISTRY, options.calibration.activations, "calibration:activations")
    if options.train is not None:
        schema = MODEL_REGISTRY.schema(options.model_type, "model_type")
        extras = options.train.model_extra or {}
        known = set(schema.model_fields) | set(TrainOptions.model_fields)
        for key in extras:
            if key not in known:
                raise OptionsError(f"Unknown option 'train:{key}'. {suggestion(key, known)}")
        extras.update(dict(validate_model(schema, extras, "train")))


def _check_average(average: float | None, bits: tuple[int, int]) -> None:
    """Check that the bits of a run are the whole number of an average, by which tables then name it."""
    if average is not None and set(bits) - {int(average), _FULL_PRECISION_BITS}:
        raise OptionsError(
            f"Option 'quantization:average_bits' is {average:g}, but the run has {bits[0]} bits for weights and {bits[1]} for "
            f"activations. Give bit={int(average)}."
        )


def metric_arguments(val: ValOptions, scale: int, name: str) -> dict[str, Any]:
    """Return the options of a metric in `val:metrics`, completed by those of section `val` and by defaults.

    Raises:
        OptionsError: there is no such metric, or it does not know an option.
    """
    where = f"val:metrics:{name}"
    known = METRIC_REGISTRY.schema(val.metrics[name].get("type"), f"{where}:type").model_fields
    common = {
        "crop_border": scale if val.crop_border is None else val.crop_border,
        "test_y_channel": val.test_y_channel,
    }
    return METRIC_REGISTRY.check({**{k: v for k, v in common.items() if k in known}, **val.metrics[name]}, where)


def _check_metrics(options: Options) -> None:
    """Check all metrics, and that the one that chooses the best iterate is among them."""
    for name in options.val.metrics:
        metric_arguments(options.val, options.scale, name)
    best = options.val.best_metric
    if options.train is not None and best not in options.val.metrics:
        raise OptionsError(
            f"Option 'val:best_metric' is '{best}', which 'val:metrics' does not name. {suggestion(best, options.val.metrics)}"
        )


def _fit_overlap(val: ValOptions) -> None:
    """Let small tiles share less than the default, which is meant for larger ones; what the user gives stays."""
    if val.tile is not None and "tile_overlap" not in val.model_fields_set:
        val.tile_overlap = default_overlap(val.tile, _WINDOW, val.tile_overlap)


def _check_dataset_names(options: Options) -> None:
    """Results, saved images and cached outputs go by the name of the dataset: it must be a folder's name, and its own."""
    keys: dict[str, str] = {}
    for key, dataset in options.datasets.items():
        if "name" not in dataset:
            continue
        fields = {"name": (FolderName, ...)}
        validate_fields(fields, {"name": dataset["name"]}, f"datasets:{key}")
        other = keys.setdefault(dataset["name"], key) if key.split("_")[0] != "train" else key
        if other != key:
            raise OptionsError(
                f"Options 'datasets:{other}:name' and 'datasets:{key}:name' are both '{dataset['name']}'. "
                "Give every dataset a name of its own."
            )


def _complete(registry: Registry, component: Component, where: str) -> None:
    """Check a component and fill in its defaults, in place."""
    component.update(registry.check(component, where))
