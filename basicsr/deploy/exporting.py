"""Write a trained quantized network as files for use, and check on pictures that they are that network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.data import build_evaluation_sets
from basicsr.data.base import PairedDataset
from basicsr.deploy.onnx_export import check_onnx, save_onnx
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.deploy.runtime_names import ONNX_SUFFIX, ONNXRUNTIME_ENDING
from basicsr.deploy.runtimes import RuntimeNetwork
from basicsr.deploy.verification import (
    SIDE,
    installed_runtimes,
    integer_products,
    label_of,
    largest_difference,
    latencies,
    native_precisions,
    timed_picture,
)
from basicsr.evaluation.evaluator import Evaluator, check_levels
from basicsr.networks.build import full_precision_network, quantized_network
from basicsr.quant.integers.point_tables import ContainedPoints
from basicsr.quant.integers.products import IntegerWeight
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import write_json
from basicsr.utils.locks import claimed
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options
from basicsr.utils.rounding import rounded

BYTES_OF_FLOAT = 4


@dataclass(frozen=True)
class ExportOptions:
    """What to write besides the packed file, and how.

    Attributes:
        half: the packed file stores what is not quantized in half precision.
        onnx: write ONNX graphs of the quantized network, for any runtime and for ONNX Runtime, and of the full-precision one, and
            run them by all runtimes installed.
        integer_linear: linear layers of the quantized graph compute in integers, see `eight_bit_network`.
    """

    half: bool = False
    onnx: bool = False
    integer_linear: bool = True


def export(options: Options, root: Path, device: torch.device, what: ExportOptions = ExportOptions()) -> Path:  # noqa: B008 -- frozen
    """Write `results/<name>/<name>.safetensors` and, beside it, what else is asked for and `export.json` with what the checks found.

    Args:
        options: those of a test of the quantized network.
        root: folder that holds `results/`.
        device: where the networks run for the check of the packed file; runtimes run on the CPU.
        what: which files.

    Returns:
        The packed file.

    Raises:
        OptionsError: the options describe no quantized network, or a package for ONNX is not installed.
        CheckpointError: a file cannot be read or written, or another process works in that folder.
        QuantizationError: the network cannot be frozen.
    """
    folder = root / "results" / options.name
    with claimed(folder):
        return _export_into(folder, options, device, what)


def _export_into(folder: Path, options: Options, device: torch.device, what: ExportOptions) -> Path:
    if options.quantization is None:
        raise OptionsError(
            "Section 'quantization' is required: only quantized networks are packed. Give the options file of their test."
        )
    if options.quantization.depth < 1:
        raise OptionsError(
            f"Option 'quantization:depth' is {options.quantization.depth:g}, but a packed file and a graph hold all blocks of a network. "
            "Leave the option out to export it whole; a network of fewer blocks can be tested with it."
        )
    if what.onnx:
        check_onnx()
    full_precision = full_precision_network(options)
    network, quantization_map = quantized_network(full_precision, options)
    if what.onnx:
        eight_bit_network(
            network, integer_linear=what.integer_linear
        )  # refuses what cannot be exported before any work
    datasets = build_evaluation_sets(options.datasets_of("test"), options.scale)
    file = folder / f"{options.name}.safetensors"
    size = save_packed(network, options.network_g, quantization_map, file, method=options.method_name, half=what.half)
    plain_size = BYTES_OF_FLOAT * sum(p.numel() for p in full_precision.parameters())
    get_logger().info(
        "Wrote '%s': %d bytes, the full-precision weights %d, ratio %.2f.", file, size, plain_size, plain_size / size
    )
    packed, _ = load_packed(file)
    network, packed = network.to(device).eval(), packed.to(device)
    comparison = _Comparison(network, options, datasets)
    comparison.check_levels(packed)
    report: dict[str, Any] = {"bytes": size, "bytes_full_precision": plain_size, "half": what.half}
    comparison.measure("trained", network)
    comparison.measure("packed", packed)
    if what.onnx:
        report["onnx"] = _export_onnx(network.cpu(), full_precision.cpu().eval(), file, what, comparison)
    report["datasets"] = comparison.results
    write_json(file.with_name("export.json"), report)
    return file


class _Comparison:
    """Measures networks on the test pictures; their fidelity is the agreement with the trained one.

    Attributes:
        results: for each dataset, the means of each network.
    """

    def __init__(self, trained: nn.Module, options: Options, datasets: list[PairedDataset]) -> None:
        self._evaluator = Evaluator(options.val, options.scale, trained)
        self._datasets = datasets
        self.results: dict[str, dict[str, dict[str, float]]] = {dataset.name: {} for dataset in self._datasets}

    @property
    def first_picture(self) -> torch.Tensor | None:
        """An LR picture (3, h, w), if there is any."""
        return self._datasets[0][0]["lq"] if self._datasets else None

    def check_levels(self, network: nn.Module) -> None:
        """Refuse a quantizer with too many values."""
        if self.first_picture is not None:
            check_levels(network, self.first_picture)

    def measure(self, name: str, network: nn.Module) -> None:
        """Add the means of a network on each dataset, and log them."""
        for dataset in self._datasets:
            result = self._evaluator.evaluate(network, dataset)
            get_logger().info("%s, %s", name, result.describe())
            self.results[dataset.name][name] = rounded(result.means)


def _export_onnx(
    network: nn.Module, full_precision: nn.Module, file: Path, what: ExportOptions, comparison: _Comparison
) -> dict[str, Any]:
    """Write both graphs, run them, and return what is to be reported."""
    endings = {"quantized": "", "quantized_onnxruntime": ONNXRUNTIME_ENDING, "full_precision": "_fp"}
    graphs = {name: file.with_name(f"{file.stem}{ending}{ONNX_SUFFIX}") for name, ending in endings.items()}
    get_logger().info("The graphs for ONNX are traced, which takes a minute or two for a SwinIR.")
    save_onnx(
        network,
        graphs["quantized"],
        integer_linear=what.integer_linear,
        for_onnxruntime=graphs["quantized_onnxruntime"],
    )
    save_onnx(full_precision, graphs["full_precision"])
    sizes = {name: graph.stat().st_size for name, graph in graphs.items()}
    for name, graph in graphs.items():
        get_logger().info("Wrote '%s' (%d bytes).", graph, sizes[name])
    twin = eight_bit_network(network, integer_linear=what.integer_linear)
    comparison.measure("8-bit integers in PyTorch", twin)
    moved = _moves_to_integers(twin)
    threads, picture = torch.get_num_threads(), timed_picture()
    timed: dict[str, nn.Module] = {"PyTorch FP32": full_precision}
    runtimes: dict[str, Any] = {}
    for name in installed_runtimes():
        for own, precision in native_precisions(name).items():
            label = label_of(name, precision)
            graph = graphs["quantized_onnxruntime" if name == "onnxruntime" else "quantized"]
            runtime = RuntimeNetwork(graph, name, threads=threads, precision=precision)
            comparison.measure(label, runtime)
            runtimes[label] = integer_products(runtime, picture)
            if comparison.first_picture is not None:
                runtimes[label]["largest_difference"] = largest_difference(runtime, twin, comparison.first_picture)
            get_logger().info("%s multiplies integers in %d nodes.", label, runtimes[label]["integer_nodes"])
            timed[f"{name} {own}"] = RuntimeNetwork(
                graphs["full_precision"], name, threads=threads, precision=precision
            )
            timed[f"{label} quantized"] = runtime
    times = {name: round(value, 2) for name, value in latencies(timed, picture).items()}
    for timed_name, milliseconds in times.items():
        get_logger().info(
            "%s: %.1f ms for 1 x 3 x %d x %d on %d threads.", timed_name, milliseconds, SIDE, SIDE, threads
        )
    return {
        "bytes": sizes,
        **moved,
        "threads": threads,
        "milliseconds": times,
        "runtimes": runtimes,
    }


def _moves_to_integers(twin: nn.Module) -> dict[str, float]:
    """Return how far 8-bit integers lie from what they stand for, at most, in steps of the quantizers."""
    moved = {
        "weights": max((module.moved for module in twin.modules() if isinstance(module, IntegerWeight)), default=0.0),
        "points": max((module.moved for module in twin.modules() if isinstance(module, ContainedPoints)), default=0.0),
    }
    for name, share in moved.items():
        if share or name == "weights":
            get_logger().info("8-bit integers are within %.3f quantization steps of the %s.", share, name)
    return {f"{name}_moved": share for name, share in moved.items()}
