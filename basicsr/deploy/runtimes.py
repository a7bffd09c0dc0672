"""ONNX graphs run by OpenVINO and ONNX Runtime on the CPU, as networks like any other."""

import functools
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from basicsr.deploy.graph_metadata import INPUT, check_seal, is_quantized, read_metadata
from basicsr.deploy.onnxruntime_form import onnxruntime_form
from basicsr.deploy.openvino_operators import read_model
from basicsr.deploy.runtime_names import ONNXRUNTIME_ENDING, Precision, RuntimeName
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.extras import require
from basicsr.utils.files import why_no_file

Infer = Callable[[np.ndarray], np.ndarray]

# ONNX Runtime would round the biases of layers with codes at both inputs to multiples of the product of their steps
_INEXACT_OPTIMISERS = ["WeightBiasQuantization"]
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")
_RUNS_BEFORE_PROFILE = 2
# OpenVINO keeps a kernel for each shape that it has met, by default 5000 of them: megabytes for each new size of picture, which
# also part the memory between them. So few suffice for the layers of one size, and for some sizes in turn.
_KERNELS_KEPT = 64


@dataclass(frozen=True)
class Kernel:
    """What ran for the nodes of one kind.

    Attributes:
        name: kind of node and implementation, as the runtime calls them.
        count: number of nodes.
        milliseconds: time of all of them together in one run.
        integer: whether it multiplies integers.
    """

    name: str
    count: int
    milliseconds: float
    integer: bool


def has_bfloat16() -> bool:
    """Return whether OpenVINO computes bfloat16 natively on this processor."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class RuntimeNetwork(nn.Module):
    """A graph that `save_onnx` wrote, run by a runtime; takes the place of a network in evaluation and upscaling.

    ONNX Runtime gets a quantized graph in the form of `onnxruntime_form`, whether or not it was written in it.

    Args:
        graph: an `onnx.ModelProto`, or the file of one.
        runtime: which runtime.
        threads: number of threads; None leaves the choice to the runtime.
        precision: of what does not multiply integers: `f32`, or where the processor has it, `bf16` (OpenVINO only; no longer
            exact, since activations are rounded to 8 bits of mantissa before they are rounded to codes).

    Attributes:
        scale: the scale factor.
        size_multiple: heights and widths are multiples of this.
        quantized: whether the graph rounds values or holds codes.

    Raises:
        OptionsError: the runtime is not installed, or does not know the precision.
        CheckpointError: the graph cannot be read or run, is not of the kind that this package writes, see `read_metadata`, or
            its file was changed, see `check_seal`.
    """

    def __init__(
        self, graph: Any, runtime: RuntimeName, *, threads: int | None = None, precision: Precision = "f32"
    ) -> None:
        super().__init__()
        if runtime not in get_args(RuntimeName):
            raise OptionsError(
                f"The runtime '{runtime}' is not known; choose one of {', '.join(get_args(RuntimeName))}."
            )
        require(runtime)
        if precision != "f32" and runtime != "openvino":
            raise OptionsError(f"The precision '{precision}' is for OpenVINO only; {runtime} computes in f32.")
        graph = _read(graph) if isinstance(graph, str | Path) else graph
        metadata = read_metadata(graph)
        self.scale, self.size_multiple, self.quantized = metadata.scale, metadata.size_multiple, is_quantized(graph)
        if metadata.runtime not in (None, runtime):
            raise CheckpointError(
                f"The ONNX graph is in the form for {metadata.runtime[:40]}, which {runtime} does not know. Give the graph that "
                f"basicsr/export.py --onnx wrote beside it, without '{ONNXRUNTIME_ENDING}' in its name."
            )
        self._runtime, self._threads, self._precision = runtime, threads, precision
        if self.quantized and runtime == "onnxruntime" and metadata.runtime is None:
            graph = _in_form(graph)
        self._graph = graph.SerializeToString()
        self._infer = _opened(self._graph, runtime, threads, precision)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge images (n, 3, h, w) with values 0..1 on the CPU; returns (n, 3, h * scale, w * scale).

        Raises:
            CheckpointError: the graph gives another size than its scale factor says.
        """
        sr = torch.cat([self._enlarged(image[None]) for image in x])
        expected = (*x.shape[:2], *(side * self.scale for side in x.shape[2:]))
        if sr.shape != expected:
            raise CheckpointError(
                f"The ONNX graph makes {tuple(sr.shape)} of {tuple(x.shape)}, but it says that its scale is {self.scale}. "
                "Export the network again."
            )
        return sr

    def _enlarged(self, image: Tensor) -> Tensor:
        """Run the graph on one image (1, 3, h, w); what a runtime raises is told in a sentence, but for too little memory."""
        try:
            return torch.from_numpy(self._infer(image.contiguous().numpy()).copy())
        except (
            Exception
        ) as error:  # each library has errors of its own, and a graph may give something else than numbers
            if isinstance(error, MemoryError) or "memory" in str(error).lower():
                raise MemoryError(str(error)) from error
            raise _cannot_run(self._runtime, error) from error

    def profile(self, x: Tensor) -> list[Kernel]:
        """Return what runs for an image (1, 3, h, w), the slowest first."""
        profile = _profile_openvino if self._runtime == "openvino" else _profile_onnxruntime
        kernels = profile(self._graph, self._threads, self._precision, x.numpy())
        return sorted(kernels, key=lambda kernel: -kernel.milliseconds)


def _in_form(graph: Any) -> Any:
    try:
        return onnxruntime_form(graph)
    except Exception as error:  # a graph that is none, which no library has to expect
        if isinstance(error, OptionsError | MemoryError):
            raise  # a package is missing, or room
        raise _cannot_run("onnxruntime", error) from error


def _opened(graph: bytes, runtime: RuntimeName, threads: int | None, precision: Precision) -> Infer:
    try:
        if runtime == "openvino":
            return _open_openvino(graph, threads, precision)
        return _open_onnxruntime(graph, threads)
    except Exception as error:  # each library has errors of its own for graphs that it cannot run
        raise _cannot_run(runtime, error) from error


def _cannot_run(runtime: RuntimeName, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split()).removesuffix(".")
    return CheckpointError(f"The ONNX graph cannot be run by {runtime}: {reason}. Export the network again.")


def _read(path: str | Path) -> Any:
    onnx = require("onnx")
    if (problem := why_no_file(Path(path))) is not None:
        raise CheckpointError(f"The ONNX graph '{path}' {problem}. Correct the path, or export it again.")
    try:
        content = Path(path).read_bytes()
        graph = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf and file errors of several libraries
        raise CheckpointError(
            f"The ONNX graph '{path}' cannot be read: {error}. Correct the path, or export it again."
        ) from error
    check_seal(graph, content, path)
    return graph


@functools.cache
def openvino_core() -> Any:
    """Return the one core of this process.

    On processors with AMX a core gives signal handlers a larger stack, and when it ends puts back the one that it found. Several
    that end in another order than the reverse leave a stack that is no longer there, and the next signal kills the process.
    """
    return require("openvino").Core()


def _openvino_request(graph: bytes, threads: int | None, precision: Precision, profile: bool) -> Any:
    core = openvino_core()
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": profile,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model = read_model(graph, threads or os.cpu_count() or 1)
    return core.compile_model(model, "CPU", config).create_infer_request()


def _open_openvino(graph: bytes, threads: int | None, precision: Precision) -> Infer:
    request = _openvino_request(graph, threads, precision, profile=False)
    return lambda x: next(iter(request.infer({0: x}, share_inputs=True, share_outputs=True).values()))


def _profile_openvino(graph: bytes, threads: int | None, precision: Precision, x: np.ndarray) -> list[Kernel]:
    request = _openvino_request(graph, threads, precision, profile=True)
    for _ in range(_RUNS_BEFORE_PROFILE):
        request.infer({0: x})
    nodes = [node for node in request.get_profiling_info() if node.status.name == "EXECUTED"]
    return _grouped(
        (
            f"{node.node_type} {node.exec_type}",
            node.real_time.total_seconds() * 1e3,
            node.node_type.startswith(_PRODUCTS) and node.exec_type.upper().endswith("I8"),
        )
        for node in nodes
    )


def _onnxruntime_session(graph: bytes, threads: int | None, profile_prefix: str | None = None) -> Any:
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow what runs next
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_INEXACT_OPTIMISERS
    )


def _open_onnxruntime(graph: bytes, threads: int | None) -> Infer:
    session = _onnxruntime_session(graph, threads)
    return lambda x: session.run(None, {INPUT: x})[0]


def _profile_onnxruntime(graph: bytes, threads: int | None, _precision: Precision, x: np.ndarray) -> list[Kernel]:
    with tempfile.TemporaryDirectory() as folder:
        session = _onnxruntime_session(graph, threads, str(Path(folder) / "profile"))
        for _ in range(_RUNS_BEFORE_PROFILE):
            session.run(None, {INPUT: x})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    nodes = nodes[-len(nodes) // _RUNS_BEFORE_PROFILE :]  # those of the last run
    return _grouped(
        (
            e["args"]["op_name"],
            e["dur"] / 1e3,
            "Integer" in e["args"]["op_name"] or e["args"]["op_name"].startswith("QLinear"),
        )
        for e in nodes
    )


def _grouped(nodes: Any) -> list[Kernel]:
    """Return a kernel for each kind in (kind, milliseconds, integer) of single nodes."""
    groups: dict[tuple[str, bool], list[float]] = {}
    for name, milliseconds, integer in nodes:
        groups.setdefault((name, integer), []).append(milliseconds)
    return [Kernel(name, len(times), sum(times), integer) for (name, integer), times in groups.items()]
