"""Enlarge one's own pictures: any size, alpha channel, grey and 16 bits kept."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from basicsr.archs import build_network
from basicsr.archs.base import detect_options, size_multiple_of, usual_options_of
from basicsr.deploy.onnx_export import check_onnx, to_onnx
from basicsr.deploy.packed_file import load_packed
from basicsr.deploy.packed_format import is_packed
from basicsr.deploy.runtime_names import ONNX_SUFFIX, Precision, RuntimeName
from basicsr.deploy.runtimes import RuntimeNetwork, has_bfloat16
from basicsr.evaluation.inference import check_tiles, upscale
from basicsr.quant.spec import QuantizationError
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.extras import require
from basicsr.utils.hardware import gains_from_bfloat16, processor
from basicsr.utils.image import Picture, image_to_tensor, tensor_to_image
from basicsr.utils.logger import get_logger
from basicsr.utils.network_size import SMALL, USUAL, Bound
from basicsr.utils.options import load_network_options
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.resize import upscale_image
from basicsr.utils.signature import options_of
from basicsr.utils.stated_network import Weights, built_from
from basicsr.utils.tiles import default_overlap
from basicsr.utils.weight_entries import largest_part, likely_missing
from basicsr.utils.weights import load_network_weights, load_weights_file

Enlarge = Callable[[Tensor], Tensor]
DEFAULT_OVERLAP = 48


def load_model(
    path: str | Path,
    options_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    param_key: str | None = None,
) -> nn.Module:
    """Load a packed quantized network, or full-precision weights.

    Args:
        path: a packed network, or weights of a known architecture.
        options_file: options whose section `network_g` says what full-precision weights belong to, and whose `plugins`
            hold what a packed network is made of beyond the package. Without it the file tells, or names and shapes; options that leave no trace there, such as EDSR's `res_scale`, are the usual ones.
        overrides: of these options, such as `network=rdn_small`.
        param_key: entry of the file that holds full-precision weights; by default a usual one.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the file cannot be read, or belongs to no architecture that can be told from its shapes.
        OptionsError: the options file cannot be used.
    """
    if Path(path).suffix.lower() == ONNX_SUFFIX:
        raise CheckpointError(
            f"The graph '{path}' is run by a runtime: choose one with --runtime openvino or onnxruntime."
        )
    given = (
        load_network_options(options_file, list(overrides)) if options_file else None
    )  # with the plugins that the options name
    if is_packed(path):
        return load_packed(path)[0]
    state_dict = load_weights_file(path, param_key)
    network = (
        build_network(given.network_g, bound=USUAL.around_tensors(state_dict.values()))
        if given
        else _detect_network(state_dict, path)
    )
    load_network_weights(network, state_dict, path)
    return network.eval().requires_grad_(False)


def load_for_runtime(
    path: str | Path,
    runtime: RuntimeName,
    options_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    threads: int | None = None,
    precision: Precision = "f32",
    param_key: str | None = None,
) -> RuntimeNetwork:
    """Load a graph that basicsr/export.py wrote, or trace one from a packed network or weights, which may take minutes.

    Args:
        path: an ONNX graph, or what `load_model` takes.
        runtime: what runs it.
        options_file, overrides, param_key: see `load_model`.
        threads: number of threads; None leaves the choice to the runtime.
        precision: see `RuntimeNetwork`.

    Raises:
        CheckpointError: the file cannot be read, or its network is quantized in a way that has no fixed uniform grid.
        OptionsError: a package is not installed, or the options file cannot be used.
    """
    require(runtime)
    if precision == "bf16" and runtime == "openvino":
        _warn_of_slow_bfloat16()
    graph = (
        path if Path(path).suffix.lower() == ONNX_SUFFIX else _traced(path, runtime, options_file, overrides, param_key)
    )
    return RuntimeNetwork(graph, runtime, threads=threads, precision=precision)


def _warn_of_slow_bfloat16() -> None:
    if not has_bfloat16():
        get_logger().warning("This processor computes no bfloat16 by itself, so that it is not faster here.")
    elif not gains_from_bfloat16():
        get_logger().warning(
            "Products in bfloat16 take longer than those in float32 on this processor (%s). Leave out bf16.",
            processor(),
        )


def _traced(
    path: str | Path,
    runtime: RuntimeName,
    options_file: str | Path | None,
    overrides: Sequence[str],
    param_key: str | None,
) -> Any:
    """Return the graph of a packed network or of weights, as an `onnx.ModelProto`; see `load_for_runtime`."""
    check_onnx()
    network = load_model(path, options_file, overrides, param_key)
    get_logger().info(
        "The network is traced for %s; a graph that basicsr/export.py --onnx wrote starts at once.", runtime
    )
    try:
        return to_onnx(network, own_kernels=runtime == "openvino")
    except QuantizationError as error:
        raise CheckpointError(
            f"The network '{path}' has no form for {runtime}: {error} Use --runtime torch."
        ) from error


def _detect_network(weights: Weights, path: str | Path) -> nn.Module:
    """Build the network that a file of weights states, or that of the first architecture that its tensors can belong to."""
    part: Mapping[str, Tensor] = weights
    while True:
        network = _network_of(part, dict(weights.network or {}), path)
        if network is not None:
            get_logger().info("The weights '%s' are of the network %s.", path, built_from(network))
            return network
        inner = largest_part(part)
        if inner is None:
            break
        part = inner[1]
    if forgotten := likely_missing(weights):
        raise CheckpointError(
            f"The weights '{path}' are incomplete: they lack {', '.join(forgotten)}. Get the file again from where it was made."
        )
    raise CheckpointError(
        f"The weights '{path}' are of no architecture that is known here ({', '.join(ARCH_REGISTRY.names())}). Give a packed "
        "network, or full-precision weights of one of these."
    )


def _network_of(tensors: Mapping[str, Tensor], stated: dict[str, Any], path: str | Path) -> nn.Module | None:
    """Build the network that a file states, or that of the first architecture that tensors can belong to; None if there is none."""
    bound = SMALL.around_tensors(tensors.values())
    for name in ARCH_REGISTRY.names():
        options = detect_options(ARCH_REGISTRY.get(name), tensors) if stated.get("type", name) == name else None
        if options is None:
            continue
        try:
            untold = _options_without_trace(name, options, stated, bound)
            return build_network({**untold, **options, "type": name}, bound=bound)
        except OptionsError as error:  # of a count that is too low, since a tensor is missing
            if stated:
                raise CheckpointError(f"The weights '{path}' state a network that cannot be built: {error}") from error
            return None
    return None


def _options_without_trace(
    name: str, detected: Mapping[str, Any], stated: Mapping[str, Any], bound: Bound
) -> Mapping[str, Any]:
    """Return the options that shapes do not tell: those that the file states, or else those that are usual."""
    if stated:
        known = options_of(ARCH_REGISTRY.get(name))
        return {key: value for key, value in stated.items() if key in known}
    usual = usual_options_of(build_network({"type": name, **detected}, bound=bound))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in usual.items()}


def enlarger(network: nn.Module, device: torch.device, tile: int | None, overlap: int | None = None) -> Enlarge:
    """Return a function from LR (3, h, w) in 0..1 to SR (3, h * scale, w * scale) on the CPU, with PyTorch.

    Args:
        network: with `scale` and `size_multiple`.
        device: where it runs.
        tile: side of the tiles in LR pixels, which bounds the memory; None for none. Smaller pictures go through at once.
        overlap: LR pixels that neighbouring tiles share; None for `DEFAULT_OVERLAP`, see `default_overlap`.

    Raises:
        OptionsError: tile or overlap do not fit the network.
    """
    network = network.to(device)
    if overlap is None:
        overlap = default_overlap(tile or 0, size_multiple_of(network), DEFAULT_OVERLAP)
    check_tiles(network, tile, overlap)

    def enlarge(lr: Tensor) -> Tensor:
        tiled = tile is not None and max(lr.shape[1:]) > tile
        return upscale(network, lr[None].to(device), pad="mirror", tile=tile if tiled else None, tile_overlap=overlap)[
            0
        ].cpu()

    return enlarge


def enlarge_picture(picture: Picture, enlarge: Enlarge, scale: int) -> Picture:
    """Enlarge colours by a network and the alpha channel by bicubic interpolation; see `bleed` for what is transparent."""
    colours = picture.rgb if picture.alpha is None else bleed(picture.rgb, picture.alpha)
    rgb = tensor_to_image(enlarge(image_to_tensor(colours)), picture.rgb.dtype.type)
    alpha = picture.alpha
    if alpha is not None:
        alpha = upscale_image(np.ascontiguousarray(alpha)[..., None], scale)[..., 0]
    return Picture(rgb, alpha, picture.grey, picture.profile)


def bleed(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give fully transparent pixels the colour of the nearest visible one, so that none of theirs gets into visible borders.

    Args:
        rgb: H,W,3.
        alpha: H,W.

    Returns:
        H,W,3; `rgb` itself where all pixels are visible, or none.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return rgb
    # the label of a pixel is that of the nearest pixel with the value 0, which are the visible ones
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((labels.max() + 1, 3), rgb.dtype)
    colours[labels[~hidden]] = rgb[~hidden]
    return colours[labels]
