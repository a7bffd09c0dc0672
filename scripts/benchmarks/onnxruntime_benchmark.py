"""ONNX Runtime: quantized graphs in its own form, beside the graphs for any runtime and those in float32.

Runs from the root of the repository, on the networks that it carries; PSNR on Set5 where it is laid out. Bounds are those of DOBI without
training, for latency does not depend on them. The machine may do other work: ratios are medians of pairs, each run one after the other.
"""

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from basicsr.deploy.graph_metadata import add_runtime
from basicsr.deploy.onnx_export import save_onnx
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.deploy.verification import timed_picture, times_in_turns
from basicsr.evaluation.evaluator import Evaluator
from basicsr.models.quantized_model import QuantizedModel
from basicsr.pipeline import build_model, calibration_set
from basicsr.utils.options import Options, load_options
from benchmarks.deploy_benchmark import OPTIONS_FILE, SET5, kernel_table, psnr_dataset

ROUNDS = 9
THREADS = (1, 2)
FLOAT32, ANY, OWN = "float32", "graph for any runtime", "graph for ONNX Runtime"


@dataclass(frozen=True)
class Case:
    """A network: what it is called, and what its options say beyond the recipe."""

    title: str
    overrides: tuple[str, ...]


CASES = (
    Case(
        "EDSR-baseline x4, full, 8 bits",
        ("network=edsr_baseline", "quantization:coverage=full", "quantization:weight_symmetric=true", "bit=8"),
    ),
    Case("EDSR-baseline x4, body, 4 bits", ("network=edsr_baseline", "bit=4")),
    Case("RDN-small x4, body, 4 bits, one grid for each block", ("network=rdn_small", "bit=4", "quantization:shared_inputs=true")),
    Case("RDN-small x4, body, 4 bits", ("network=rdn_small", "bit=4")),
    Case("SwinIR-light x4, 2dquant, 4 bits", ("bit=4",)),
)  # fmt: skip


def run() -> str:
    """Return a table of latencies and PSNR, and where the time of the graphs for ONNX Runtime goes."""
    side = timed_picture().shape[-1]
    rows = [
        f"Median milliseconds for 1 x 3 x {side} x {side} in ONNX Runtime, in parentheses how many times as fast as float32. PSNR on "
        "Set5 in dB where it is laid out, of the trained network in PyTorch first.",
        "",
        f"| network | threads | {FLOAT32} | {ANY} | {OWN} | PSNR, PyTorch | {ANY} | {OWN} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kernels = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            own_rows, profile = _of_case(case, Path(folder))
        rows += own_rows
        kernels.append(profile)
    return "\n\n".join(["\n".join(rows), *kernels])


def _of_case(case: Case, folder: Path) -> tuple[list[str], str]:
    options = load_options(OPTIONS_FILE, [*case.overrides, SET5])
    model = build_model(options, torch.device("cpu"))
    assert isinstance(model, QuantizedModel)
    model.calibrate(calibration_set(options).lq)
    network = model.network.eval()
    files = {name: folder / f"{name}.onnx" for name in (FLOAT32, ANY, OWN)}
    save_onnx(model.full_precision.eval(), files[FLOAT32])
    save_onnx(network, files[ANY], for_onnxruntime=files[OWN])
    rows = []
    for threads in THREADS:
        networks = {name: _opened(file, threads) for name, file in files.items()}
        if not rows:
            quality = [
                f"{psnr:.4f}" for psnr in _psnr({"trained": network, ANY: networks[ANY], OWN: networks[OWN]}, options)
            ]
            profile = kernel_table(f"Where the time of {case.title} goes, {OWN}, on one thread", networks[OWN])
        cells = [f"{milliseconds:.0f} ({ratio:.2f})" for milliseconds, ratio in _timed(networks)]
        rows.append(f"| {' | '.join([case.title, str(threads), cells[0].split()[0], *cells[1:], *quality])} |")
        quality = [""] * len(quality)
    return rows, profile


def _opened(file: Path, threads: int) -> RuntimeNetwork:
    """Return a graph as it is in its file: one for any runtime is not brought into the form of this one."""
    graph = onnx.load(str(file))
    if file.stem != OWN:
        add_runtime(graph, "onnxruntime")
    return RuntimeNetwork(graph, "onnxruntime", threads=threads)


@torch.inference_mode()
def _timed(networks: Mapping[str, nn.Module]) -> list[tuple[float, float]]:
    """Return for each network its median milliseconds, and the median of the ratios to the first one, which ran just before."""
    columns = list(times_in_turns(networks, timed_picture(), ROUNDS).values())
    return [
        (statistics.median(column), statistics.median(a / b for a, b in zip(columns[0], column, strict=True)))
        for column in columns
    ]


def _psnr(networks: Mapping[str, nn.Module], options: Options) -> list[float]:
    dataset = psnr_dataset(options)
    evaluator = Evaluator(options.val, options.scale, None)
    return [evaluator.evaluate(network, dataset).means["psnr"] for network in networks.values()]
