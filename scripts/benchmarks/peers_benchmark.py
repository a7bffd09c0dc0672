"""8-bit graphs of this project beside those that NNCF makes of the same full-precision graph and the same calibration crops.

All run in OpenVINO, in turns in one process. Milliseconds are those of the processor, on one thread, so that other work on the machine does
not count. PSNR on Set5 where it is laid out, else on the validation pictures that the repository carries.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.archs.base import scale_of, size_multiple_of
from basicsr.data import build_evaluation_sets
from basicsr.deploy import onnx_export
from basicsr.deploy.native_library import native_library
from basicsr.deploy.onnx_export import save_onnx, to_onnx
from basicsr.deploy.runtime_names import Precision
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.deploy.verification import native_precisions, timed_picture
from basicsr.evaluation.evaluator import Evaluator
from basicsr.models.quantized_model import QuantizedModel
from basicsr.pipeline import build_model, calibration_set
from basicsr.utils.options import Options, load_options
from benchmarks.nncf_graphs import MIXED, PERFORMANCE, TRANSFORMER, NncfNetwork, quantized_by_nncf
from tests.archs.plain_swinir import PlainSwinIR

OPTIONS_FILE = "options/train/demo_DOBI.yml"
ROUNDS = 9
_FULL_PRECISION, _OURS = "full precision", "this project"
_PLAIN = "shuffles as in PyTorch"
_SHUFFLE_PASSES = ("convolve_before_shuffle", "shuffle_whole_pixels")
_SET5 = (
    "datasets:test_1={name: Set5, type: PairedImageDataset, dataroot_gt: datasets/benchmark/Set5/HR, "
    "dataroot_lq: 'datasets/benchmark/Set5/LR_bicubic/X{scale}'}"
)


@dataclass(frozen=True)
class Case:
    """A network to compare on.

    Attributes:
        title: what it is called.
        overrides: of the options that calibrate it.
        presets: those of NNCF.
        shuffles: whether its graph has pixel shuffles that the passes of this project change much; NNCF then gets graphs of both kinds.
        plain: builds, for a scale factor, a plain implementation with the same state dict; PyTorch is then timed as well.
        also: further quantizations of the network, by what they are called: overrides beside the others.
    """

    title: str
    overrides: tuple[str, ...]
    presets: tuple[str, ...]
    shuffles: bool = False
    plain: Callable[[int], nn.Module] | None = None
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_FULL = ("quantization:coverage=full", "quantization:weight_symmetric=true", "bit=8")
_ONE_GRID = {"one grid for a block": ("quantization:shared_inputs=true",)}
CASES = (
    Case("EDSR-baseline x4, all convolutions, 8 bits", ("network=edsr_baseline", *_FULL), (PERFORMANCE, MIXED), True),
    Case(
        "SwinIR-light x4, 2dquant, 8 bits",
        ("network=swinir_light", "bit=8"),
        (PERFORMANCE, MIXED, TRANSFORMER),
        plain=PlainSwinIR,
    ),
    Case("SwinIR-light x4, 2dquant, 4 bits", ("network=swinir_light", "bit=4"), (), plain=PlainSwinIR),
    *(
        Case(f"RDN-small x4, body, {bits} bits", ("network=rdn_small", f"bit={bits}"), (), also=_ONE_GRID)
        for bits in (8, 4, 2)
    ),
)


def run() -> Iterator[str]:
    """Yield a Markdown table for each case; those with graphs of NNCF only where it is installed."""
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if not case.presets or find_spec("nncf") is not None:
                yield _table(case, Path(folder))


def _table(case: Case, folder: Path) -> str:
    options, model, crops = _calibrated(case.overrides)
    networks = _networks(case, model, crops, folder)
    for name, overrides in case.also.items():
        _, other, _ = _calibrated((*case.overrides, *overrides))
        networks |= _in_precisions(f"{_OURS}, {name}", to_onnx(other.network.eval()))
    milliseconds = processor_milliseconds(networks)
    name, quality = _psnr(networks, options)
    rows = [
        f"{case.title}: 1 x 3 x {timed_picture().shape[-2]} x {timed_picture().shape[-1]} on one thread, {len(crops)} crops to calibrate.",
        "",
        f"| graph | ms of the processor | PSNR on {name} (dB) |",
        "|---|---|---|",
    ]
    rows += [f"| {label} | {milliseconds[label]:.1f} | {quality[label]:.3f} |" for label in networks]
    return "\n".join(rows)


def _calibrated(overrides: Sequence[str]) -> tuple[Options, QuantizedModel, torch.Tensor]:
    """Return the options of a quantized network, its model, and the crops that it was calibrated on."""
    options = load_options(OPTIONS_FILE, [*overrides, _SET5])
    model = build_model(options, torch.device("cpu"))
    assert isinstance(model, QuantizedModel)
    crops = calibration_set(options).lq
    model.calibrate(crops)
    return options, model, crops


def _networks(case: Case, model: QuantizedModel, crops: torch.Tensor, folder: Path) -> dict[str, nn.Module]:
    full_precision, quantized = model.full_precision.eval(), model.network.eval()
    networks = _pytorch_networks(case, full_precision)
    graphs: dict[str, Path] = {}
    for kind, network in ((_FULL_PRECISION, full_precision), (_OURS, quantized)):
        graphs[kind] = folder / f"{kind}.onnx"
        save_onnx(network, graphs[kind])
        if case.shuffles:
            graphs[f"{kind}, {_PLAIN}"] = folder / f"{kind}, plain.onnx"
            with _without_shuffle_passes():
                save_onnx(network, graphs[f"{kind}, {_PLAIN}"])
    for name, graph in graphs.items():
        networks |= _in_precisions(name, graph)
    if case.plain is not None and native_library() is not None:
        networks |= _in_precisions(f"{_OURS}, own kernel", to_onnx(quantized, own_kernels=True))
    sources = {f"of {_OURS}'s graph": graphs[_FULL_PRECISION]}
    if case.shuffles:
        sources = {_PLAIN: graphs[f"{_FULL_PRECISION}, {_PLAIN}"], **sources}
    for preset in case.presets:
        for kind, graph in sources.items():
            model = quantized_by_nncf(graph, crops, preset)
            for precision in _precisions():
                networks[f"NNCF, {preset}, {kind}{_suffix(precision)}"] = NncfNetwork(graph, model, precision)
    return networks


def _pytorch_networks(case: Case, full_precision: nn.Module) -> dict[str, nn.Module]:
    if case.plain is None:
        return {}
    plain = case.plain(scale_of(full_precision)).eval()
    plain.load_state_dict(full_precision.state_dict())
    plain.scale, plain.size_multiple = scale_of(full_precision), size_multiple_of(full_precision)
    return {"PyTorch, plain implementation": plain, "PyTorch": full_precision}


def _in_precisions(name: str, graph: Any) -> dict[str, nn.Module]:
    """Return a graph in the precisions that the processor has for what is not quantized."""
    return {
        f"{name}{_suffix(precision)}": RuntimeNetwork(graph, "openvino", threads=1, precision=precision)
        for precision in _precisions()
    }


def _precisions() -> list[Precision]:
    return list(native_precisions("openvino").values())


def _suffix(precision: Precision) -> str:
    return "" if precision == "f32" else f", {precision}"


@contextmanager
def _without_shuffle_passes() -> Iterator[None]:
    """Export graphs whose pixel shuffles are where PyTorch has them."""
    kept = {name: getattr(onnx_export, name) for name in _SHUFFLE_PASSES}
    try:
        for name in kept:
            setattr(onnx_export, name, lambda _model: None)
        yield
    finally:
        for name, function in kept.items():
            setattr(onnx_export, name, function)


@torch.inference_mode()
def processor_milliseconds(networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the median milliseconds of the processor for each network; they run in turns, PyTorch on one thread."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS + 1):
            for name, network in networks.items():
                started = time.process_time()
                network(timed_picture())
                times[name].append(1e3 * (time.process_time() - started))
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _psnr(networks: Mapping[str, nn.Module], options: Options) -> tuple[str, dict[str, float]]:
    """Return the name of a data set and the PSNR of each network on it."""
    sets = [d for d in build_evaluation_sets(options.datasets_of("test"), options.scale) if d.name == "Set5"]
    dataset = (sets or build_evaluation_sets(options.datasets_of("val"), options.scale))[0]
    evaluator = Evaluator(options.val, options.scale, None)
    values = {label: evaluator.evaluate(network, dataset).means["psnr"] for label, network in networks.items()}
    return dataset.name, {label: float(value or 0) for label, value in values.items()}
