"""Train what a method trains after calibration, on crops alone or on HR images."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from basicsr.archs.base import feature_layers_of
from basicsr.data import build_dataset, crop_batches, training_batches
from basicsr.interface.crops import Crops, as_crops
from basicsr.interface.networks import probe, repeated_blocks
from basicsr.interface.quantized_network import QuantizedNetwork, require_quantized
from basicsr.interface.recipes import check_changes, read_recipe, resolve_options, trains
from basicsr.models.base_model import model_class_of
from basicsr.models.quantized_model import QuantizedModel
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.training.fusing import compiled_quantizers
from basicsr.training.not_finite import parameter_not_finite
from basicsr.utils.errors import OptionsError, TrainingError
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options, merge

DEFAULT_METHOD = "2DQuant"
_LOSS_ON_FEATURES = "feature_loss"


def distill(
    quantized: QuantizedNetwork,
    crops: Crops,
    iterations: int | None = None,
    method: str | None = None,
    *,
    batch_size: int | None = None,
    images: str | Path | None = None,
    feature_layers: list[str] | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> QuantizedNetwork:
    """Train the quantizers, and what else the method trains, so that the network comes close to the full-precision one.

    Args:
        quantized: what `quantize` returned; it is not changed.
        crops: LR crops to train on, float (n, 3, h, w) in 0..1, or a list of images; those of the calibration serve well.
        iterations: steps of the optimiser; by default those of the recipe, thousands.
        method: a name of `methods()` that trains, such as 2DQuant, DBDC+Pac, BRECQ, LSQ; by default the one that `quantized` was made
            with where that trains, else 2DQuant.
        batch_size: crops in a step; by default that of the recipe, at most all.
        images: folder of HR images, which quantization-aware training (LSQ, PAMS ..) needs besides; their crops have the size of `crops`.
        feature_layers: modules whose outputs a feature loss compares; by default those that the network names (`feature_layers`), or
            else the blocks that it repeats. Without any, the loss between outputs is the only one.
        seed: chooses the batches.
        options: changes of the recipe in the sections and names of the YAML files, such as `{"train": {"feature_loss": None}}`.

    Returns:
        A new network, with the full-precision one as before.

    Raises:
        OptionsError: the method trains nothing, needs other quantizers or HR images, or an argument is out of range.
        DataError: the crops or images cannot be used.
        TrainingError: a loss or a parameter is not finite.
    """
    full_precision = _full_precision_of(quantized)
    check_changes(options)
    if isinstance(feature_layers, str):
        feature_layers = [feature_layers]
    lr = as_crops(crops, quantized.size_multiple)
    train = {
        "num_workers": 0,
        "total_iter": _positive("iterations", iterations),
        "batch_size": _positive("batch_size", batch_size),
    }
    given = {key: value for key, value in train.items() if value is not None}
    resolved = _resolve(quantized, method, given, merge({"manual_seed": seed}, dict(options or {})))
    section = resolved.required_train()
    section.batch_size = min(section.batch_size, len(lr))
    arguments = _arguments(resolved, full_precision, lr, feature_layers)
    device = next(full_precision.parameters()).device
    model_class = model_class_of(resolved)
    assert issubclass(model_class, QuantizedModel)  # the recipes of the interface are of methods that quantize
    model = model_class(full_precision, resolved, device, **arguments)
    _take_over(model, quantized)
    total = section.total_iter
    with compiled_quantizers(section.fused_quantizers, device):
        if model.trains_on == "crops":
            model.prepare(lr)
        _train(model, _batches(model, resolved, lr, images, quantized.scale), total)
    return QuantizedNetwork(
        model.network_for_evaluation().requires_grad_(False),
        quantized.scale,
        quantized.size_multiple,
        full_precision=full_precision,
        quantization_map=quantized.quantization_map,
        calibration=quantized.calibration,
        sections=quantized.sections,
        methods=(*quantized.methods, f"{resolved.method_name}, {total} iterations"),
        left_out=quantized.left_out,
        smallest_side=quantized.smallest_side,
    )


def _full_precision_of(quantized: QuantizedNetwork) -> nn.Module:
    """Return the network that a quantized one was made of, for its training.

    Raises:
        OptionsError: the network is none that `quantize` made, or was loaded without it.
    """
    require_quantized(quantized)
    if quantized.full_precision is None or not quantized.sections:
        raise OptionsError(
            "This network was loaded from a packed file, which holds what is needed to use it and not what trains it. Begin with quantize()."
        )
    return quantized.full_precision


def _resolve(
    quantized: QuantizedNetwork, method: str | None, train: Mapping[str, Any], changes: Mapping[str, Any]
) -> Options:
    """Return the options of a run that continues where `quantized` is, by the recipe of a method."""
    name = type(quantized.full_precision).__name__
    own = {key: quantized.sections[key] for key in ("quantization", "calibration")}
    if method is None:
        method = str(quantized.sections["recipe"])
        if not trains(resolve_options(read_recipe(method), name, own)):
            method = DEFAULT_METHOD
    recipe = read_recipe(method)
    wanted = resolve_options(recipe, name, {"quantization": {"coverage": quantized.coverage}, "bit": 8})
    if not trains(wanted):
        raise OptionsError(
            f"The method '{method}' trains nothing; quantize() has done all of it. Choose another one, such as {DEFAULT_METHOD}."
        )
    _check_quantizers(method, wanted, quantized)
    recipe["train"] = merge(recipe["train"], dict(train))
    rest = {key: value for key, value in recipe.items() if key not in own}
    return resolve_options({**rest, **own}, name, changes)


def _arguments(resolved: Options, network: nn.Module, lr: Tensor, feature_layers: list[str] | None) -> dict[str, Any]:
    """Return the arguments of the method, with the layers that a feature loss compares; no such loss where there are none."""
    arguments = dict(resolved.required_train().model_extra or {})
    if arguments.get(_LOSS_ON_FEATURES) and not (feature_layers or arguments.get("feature_layers")):
        feature_layers = _default_feature_layers(network, lr[:1])
        if not feature_layers and arguments.get("pixel_loss"):
            arguments[_LOSS_ON_FEATURES] = None
    if feature_layers:
        arguments["feature_layers"] = list(feature_layers)
    return arguments


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise OptionsError(f"{name} is {value!r}, but must be a positive integer.")
    return value


def _check_quantizers(method: str, wanted: Options, quantized: QuantizedNetwork) -> None:
    """Refuse a method that is made for other quantizers than those of the network: a label is a promise."""
    present = quantized.sections["quantization"]
    assert wanted.quantization is not None  # its bits and quantizers are those of a quantized network
    needed = wanted.quantization.model_dump()
    for key in ("weight_quantizer", "activation_quantizer"):
        if needed[key]["type"] != present[key]["type"]:
            raise OptionsError(
                f"The method '{method}' needs a {key.replace('_', ' ')} of type {needed[key]['type']}, but the network has {present[key]['type']}. "
                f"Quantize with method='{method}' first."
            )


def _default_feature_layers(network: nn.Module, lr: Tensor) -> list[str]:
    """Return the layers that a network names, or else the blocks that it repeats."""
    named = list(feature_layers_of(network))
    if named:
        return named
    found = repeated_blocks(network, probe(network, lr).features)
    if found:
        get_logger().info(
            "The network %s names no 'feature_layers'; the outputs of its repeated blocks are compared: %s.",
            type(network).__name__, ", ".join(found),
        )  # fmt: skip
    else:
        get_logger().warning(
            "The network %s names no 'feature_layers' and repeats no blocks, so that only outputs are compared. Name modules with "
            "feature_layers=[..] to compare their outputs too.",
            type(network).__name__,
        )
    return found


def _take_over(model: QuantizedModel, quantized: QuantizedNetwork) -> None:
    """Give the model's network the quantizers of `quantized`, and its weights where the model has weights of its own."""
    own, given = model.network.state_dict(), quantized.network.state_dict()
    quantizers = tuple(f"{name}." for name, _ in named_quantizers(quantized.network))
    shared = {id(parameter) for parameter in model.full_precision.parameters()}
    shares = any(id(parameter) in shared for parameter in model.network.parameters())
    for name, value in given.items():
        if shares and not name.startswith(quantizers) and not torch.equal(own[name], value):
            raise OptionsError(
                f"The weights of '{name}' have been trained already ({quantized.method}), but this method leaves weights as they are in the "
                "full-precision network. Choose one that trains weights, or begin with quantize()."
            )
    model.network.load_state_dict(
        {k: v for k, v in given.items() if not shares or k.startswith(quantizers)}, strict=not shares
    )


def _batches(
    model: QuantizedModel, options: Options, lr: Tensor, images: str | Path | None, scale: int
) -> Iterator[Mapping[str, Tensor]]:
    train, seed = options.required_train(), options.manual_seed
    if model.trains_on == "crops" or (images is None and not model.needs_originals):
        return crop_batches(lr, train.batch_size, seed, 0)
    if images is None:
        raise OptionsError(
            f"The method '{options.method_name}' trains against HR images: name their folder with images=... Methods that need crops alone "
            "are QAD, 2DQuant, DBDC+Pac, BRECQ and QDrop."
        )
    section = {
        "type": "PairedImageDataset",
        "name": "images",
        "dataroot_gt": str(images),
        "lq_size": min(lr.shape[-2:]),
    }
    return training_batches(build_dataset(section, scale, "train", "images"), train, seed, 0)


def _train(model: Any, batches: Iterator[Mapping[str, Tensor]], total: int) -> None:
    """Take the steps of a training, as the loop of the commands does, without its files."""
    bar = tqdm(range(total), desc="distill", unit="it", disable=None)
    for iteration in bar:
        try:
            losses = model.optimize_parameters(next(batches))
        except TrainingError as error:
            raise TrainingError(f"Iteration {iteration + 1} failed. {error}") from error
        if iteration % 10 == 0:
            bar.set_postfix({name: f"{float(loss):.3e}" for name, loss in losses.items()})
    name = parameter_not_finite(model.network)
    if name is not None:
        raise TrainingError(f"The parameter '{name}' is not finite after training. {model.remedy}")
