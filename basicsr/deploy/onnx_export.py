"""Networks as ONNX graphs for images of any size."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.archs.base import for_any_size, scale_of, size_multiple_of
from basicsr.deploy.concat_pass import round_before_concat
from basicsr.deploy.graph_metadata import INPUT, OUTPUT, GraphMetadata, add_metadata, sealed
from basicsr.deploy.graph_passes import round_before_shuffle, share_equal_constants, strip_notes
from basicsr.deploy.onnxruntime_form import onnxruntime_form
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.deploy.shuffle_passes import convolve_before_shuffle, shuffle_whole_pixels
from basicsr.deploy.swin_kernel import OPERATOR, with_kernels
from basicsr.quant.integers.operators import NAMESPACE
from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import require
from basicsr.utils.files import atomic_path

OPSET = 21
_PACKAGES = ("onnx", "onnx_ir", "onnxscript")  # each before those that import it
_OLDEST_TORCH = (2, 7)
_LARGEST_SIDE = 2**15
_LARGEST_FOLDED = 1024  # elements


def save_onnx(
    network: nn.Module,
    path: Path,
    *,
    integer_linear: bool = True,
    smallest_side: int = 1,
    for_onnxruntime: Path | None = None,
) -> int:
    """Write a network as an ONNX graph from `lr` (1, 3, h, w), RGB in 0..1, to `sr` (1, 3, h * scale, w * scale), not clipped.

    h and w are any multiples of the network's `size_multiple`. The metadata of the graph say all this and the scale
    factor, and hold a checksum, see `graph_metadata`.

    Args:
        network: a full-precision network, or a calibrated quantized one, which is exported as `eight_bit_network` has it.
        path: the file to write.
        integer_linear: see `eight_bit_network`.
        smallest_side: the network does not work on smaller heights and widths, and neither has the graph to.
        for_onnxruntime: a file for the graph in the form of `onnxruntime_form`, which no other runtime knows.

    Returns:
        The size of the graph for any runtime in bytes.

    Raises:
        OptionsError: the packages for ONNX are not installed.
        QuantizationError: the network is quantized in a way that has no fixed uniform grid.
    """
    onnx = require("onnx")
    model = to_onnx(network, integer_linear=integer_linear, smallest_side=smallest_side)
    graphs = {path: model} if for_onnxruntime is None else {for_onnxruntime: onnxruntime_form(model), path: model}
    for file, graph in graphs.items():
        onnx.checker.check_model(graph)
        with atomic_path(file) as temporary:
            temporary.write_bytes(sealed(graph))
    return path.stat().st_size


def to_onnx(
    network: nn.Module, *, integer_linear: bool = True, smallest_side: int = 1, own_kernels: bool = False
) -> Any:
    """Return the graph of `save_onnx` as an `onnx.ModelProto`.

    Args:
        network, integer_linear, smallest_side: see `save_onnx`.
        own_kernels: Swin layers are operators of this project where it has its kernels, see `with_kernels`. Only its own
            `RuntimeNetwork` runs such a graph, in OpenVINO.
    """
    check_onnx()
    scale, multiple = scale_of(network), size_multiple_of(network)
    network = with_kernels(network) if own_kernels else network
    network = for_any_size(eight_bit_network(network, integer_linear=integer_linear))
    smallest = -(-smallest_side // multiple)
    example = torch.rand(
        1, 3, (smallest + 2) * multiple, (smallest + 4) * multiple
    )  # or equal sides would be taken for the same
    sides = [torch.export.Dim(name, min=smallest, max=_LARGEST_SIDE // multiple) for name in ("height", "width")]
    if multiple > 1:
        sides = [multiple * side for side in sides]
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network, (example,), dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_shapes=({2: sides[0], 3: sides[1]},), custom_translation_table=_translations(), verbose=False, optimize=False,
        )  # fmt: skip
        assert program is not None  # what dynamo=True returns
        # what runtimes fold when they load a graph, such as position biases, need not be stored
        require("onnxscript.optimizer").optimize(program.model, output_size_limit=_LARGEST_FOLDED)
        share_equal_constants(program.model)
        round_before_concat(program.model)
        round_before_shuffle(program.model)
        convolve_before_shuffle(program.model)
        shuffle_whole_pixels(program.model)
    model = program.model_proto
    strip_notes(model)
    add_metadata(model, GraphMetadata(scale, multiple))
    return model


def check_onnx() -> None:
    """Refuse to export where a package is missing or too old, with an OptionsError, so that nothing is computed in vain."""
    for package in _PACKAGES:
        require(package)
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST_TORCH:
        raise OptionsError(
            f"ONNX graphs need torch {'.'.join(map(str, _OLDEST_TORCH))} or newer, and this is {torch.__version__}. Install a newer one, or "
            "leave out --onnx."
        )


def _translations() -> dict[Any, Any]:
    """Return what the operators of `quant.integers.operators` become."""
    from onnxscript import INT8, INT32, UINT8, opset21
    from onnxscript.values import Op, Opset

    swin_operator: Any = Op(Opset(NAMESPACE, 1), OPERATOR, _swin_schema())
    op: Any = opset21  # what its operators give in a graph is not what its types say

    def through_uint8(x: Any, step: float, zero_point: int) -> Any:
        scale = op.Constant(value_float=step)
        zero = op.Cast(op.Constant(value_int=zero_point), to=UINT8.dtype)
        return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)

    def from_int8(codes: INT8, steps: Any) -> Any:
        return op.DequantizeLinear(codes, steps, axis=0)

    def look_up(x: Any, table: Any, start: float, width: float) -> Any:
        places = op.Mul(op.Sub(x, op.Constant(value_float=start)), op.Constant(value_float=1 / width))
        last = op.Sub(op.Cast(op.Size(table), to=1), op.Constant(value_float=1.0))
        return op.Gather(table, op.Cast(op.Clip(places, op.Constant(value_float=0.0), last), to=INT32.dtype))

    def swin_layer(x: Any, numbers: Any, codes: Any, sizes: Any) -> Any:
        return swin_operator(x, numbers, codes, sizes=sizes)

    namespace = getattr(torch.ops, NAMESPACE)
    functions = {
        "through_uint8": through_uint8,
        "from_int8": from_int8,
        "look_up": look_up,
        "swin_layer": swin_layer,
    }
    return {getattr(namespace, name).default: function for name, function in functions.items()}


def _swin_schema() -> Any:
    """Return what goes into and comes out of a node of `swin_kernel.swin_layer`."""
    from onnx.defs import OpSchema

    inputs = {"x": "tensor(float)", "numbers": "tensor(float)", "codes": "tensor(int8)"}
    return OpSchema(
        OPERATOR, NAMESPACE, 1,
        inputs=[OpSchema.FormalParameter(name, kind) for name, kind in inputs.items()],
        outputs=[OpSchema.FormalParameter("y", "tensor(float)")],
        attributes=[OpSchema.Attribute("sizes", OpSchema.AttrType.INTS)],
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from writing about packages that are not there and are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
