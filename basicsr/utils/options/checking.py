"""What the schema alone cannot check: components against their constructors, and sections that need each other."""

from typing import Any

from basicsr.utils.errors import OptionsError, suggestion
from basicsr.utils.options.schema import Component, FolderName, Options, TrainOptions, ValOptions
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
from basicsr.utils.signature import options_of, validate_arguments, validate_fields

_WINDOW = 8  # LR pixels, of which tiles and their overlaps are multiples where the network has windows


def check_components(options: Options) -> None:
    """Check what the schema alone cannot: the components of the sections, and sections that need each other."""
    arch = ARCH_REGISTRY.get(options.network_g.get("type"), "network_g:type")
    if "upscale" in options_of(arch):
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
        options.required_bits()
        rules = options.quantization.coverage
        for index, rule in enumerate(() if isinstance(rules, str) else rules):
            QMODULE_REGISTRY.get(rule.type, f"quantization:coverage:{index}:type")
        for key in ("weight_quantizer", "activation_quantizer"):
            _complete(QUANTIZER_REGISTRY, getattr(options.quantization, key), f"quantization:{key}")
        _complete(CALIBRATOR_REGISTRY, options.calibration.weights, "calibration:weights")
        _complete(CALIBRATOR_REGISTRY, options.calibration.activations, "calibration:activations")
    if options.train is not None:
        model = MODEL_REGISTRY.get(options.model_type, "model_type")
        extras = options.train.model_extra or {}
        known = set(options_of(model)) | set(TrainOptions.model_fields)
        for key in extras:
            if key not in known:
                raise OptionsError(f"Unknown option 'train:{key}'. {suggestion(key, known)}")
        extras.update(validate_arguments(model, extras, "train"))


def metric_arguments(val: ValOptions, scale: int, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the function of a metric in `val:metrics` and its options, completed by those of section `val` and by defaults.

    Raises:
        OptionsError: there is no such metric, or it does not know an option.
    """
    where = f"val:metrics:{name}"
    component = METRIC_REGISTRY.get(val.metrics[name].get("type"), f"{where}:type")
    common = {
        "crop_border": scale if val.crop_border is None else val.crop_border,
        "test_y_channel": val.test_y_channel,
    }
    known = options_of(component)
    return METRIC_REGISTRY.resolve({**{k: v for k, v in common.items() if k in known}, **val.metrics[name]}, where)


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
    if val.tile is not None and "tile_overlap" not in val.model_fields_set and val.tile_overlap >= val.tile:
        val.tile_overlap = (val.tile - 1) // _WINDOW * _WINDOW


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
    component.update(registry.resolve(component, where)[1])
