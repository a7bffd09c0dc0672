"""Deployment: sizes of files, latency in PyTorch, OpenVINO and ONNX Runtime, and agreement of their outputs.

Runs from the root of the repository, on the networks and pictures that it carries; PSNR on Set5 where it is laid out. Bounds are those of
DOBI without training: neither size nor latency depends on them.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from basicsr.data import build_evaluation_sets
from basicsr.data.base import PairedDataset
from basicsr.deploy.onnx_export import save_onnx
from basicsr.deploy.packed_file import save_packed
from basicsr.deploy.runtime_layers import eight_bit_network
from basicsr.deploy.runtime_names import Precision, RuntimeName
from basicsr.deploy.runtimes import Kernel, RuntimeNetwork
from basicsr.deploy.verification import installed_runtimes, label_of, latencies, native_precisions, timed_picture
from basicsr.evaluation.evaluator import Evaluator
from basicsr.models.quantized_model import QuantizedModel
from basicsr.pipeline import build_model, calibration_set
from basicsr.utils.options import Options, load_options
from benchmarks import peers_benchmark
from benchmarks.instruction_sets import instruction_sets, limited_latencies
from tests.archs.plain_swinir import PlainSwinIR

BITS = (8, 4, 2)
PROFILED_BITS = 4
_KERNELS_SHOWN = 8
SET5 = (
    "datasets:test_1={name: Set5, type: PairedImageDataset, dataroot_gt: datasets/benchmark/Set5/HR, "
    "dataroot_lq: 'datasets/benchmark/Set5/LR_bicubic/X{scale}'}"
)


@dataclass(frozen=True)
class Case:
    """A network to deploy.

    Attributes:
        title: what it is called in the tables.
        options_file: a recipe that calibrates it.
        overrides: of these options.
        plain: builds, for a scale factor, a plain implementation with the same state dict, to be timed besides.
        float_linear: also export the profiled bits with linear layers in floating point.
    """

    title: str
    options_file: str
    overrides: tuple[str, ...] = ()
    plain: Callable[[int], nn.Module] | None = None
    float_linear: bool = False


OPTIONS_FILE = "options/train/demo_DOBI.yml"
CASES = (
    Case("EDSR-baseline, body", OPTIONS_FILE, ("network=edsr_baseline",)),
    Case(
        "EDSR-baseline, full, symmetric weights",
        OPTIONS_FILE,
        ("network=edsr_baseline", "quantization:coverage=full", "quantization:weight_symmetric=true"),
    ),
    Case("RDN-small, body", OPTIONS_FILE, ("network=rdn_small",)),
    Case("SwinIR-light, 2dquant", OPTIONS_FILE, plain=PlainSwinIR, float_linear=True),
)


@dataclass
class Variant:
    """A network quantized in one way: its files and what runs it."""

    name: str
    bits: int
    packed: int
    packed_half: int
    graph: Path
    networks: dict[str, nn.Module]


def run() -> Iterator[str]:
    """Yield the tables of each network, then those of one thread, beside NNCF where it is installed."""
    yield from report(CASES, BITS)
    yield from peers_benchmark.run()


def report(cases: Iterable[Case], bits_to_try: Sequence[int]) -> Iterator[str]:
    """Yield for each case the tables of sizes, latencies and PSNR, and the kernels that ran at `PROFILED_BITS`."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            yield _report_case(case, bits_to_try, Path(folder))


def _report_case(case: Case, bits_to_try: Sequence[int], folder: Path) -> str:
    variants = []
    for bits in bits_to_try:
        options = load_options(case.options_file, [*case.overrides, f"bit={bits}", SET5])
        model = build_model(options, torch.device("cpu"))
        assert isinstance(model, QuantizedModel)
        model.calibrate(calibration_set(options).lq)
        full_precision, network = model.full_precision.eval(), model.network.eval()
        variants.append(_variant(f"{bits}", network, model.quantization_map, options, folder, True))
        if case.float_linear and bits == PROFILED_BITS:
            name = f"{bits}, linear layers in floating point"
            variants.append(_variant(name, network, model.quantization_map, options, folder, False))
    reference = _full_precision_networks(case, full_precision, options, folder)
    milliseconds = latencies(
        reference.networks | {f"{v.name}: {label}": v.networks[label] for v in variants for label in _labels()},
        timed_picture(),
    )
    return "\n\n".join(
        [
            f"## {case.title}, x{options.scale}",
            _size_table(reference, variants),
            _latency_table(reference, variants, milliseconds),
            _instructions_table([reference, *(v for v in variants if v.bits == PROFILED_BITS)]),
            _psnr_table(variants, options),
            *(
                kernel_table(
                    f"Where the time of {label} goes (bits: {v.name})", cast(RuntimeNetwork, v.networks[label])
                )
                for v in variants
                for label, (runtime, _) in _labels().items()
                if v.bits == PROFILED_BITS and runtime == "openvino"
            ),
        ]
    )


def _variant(
    name: str, network: nn.Module, quantization_map: object, options: Options, folder: Path, integer_linear: bool
) -> Variant:
    """Export a network; the trained one is kept as `trained`, its copy on 8-bit grids as `PyTorch`."""
    file = folder / f"{name}.safetensors"
    packed, packed_half = (
        save_packed(network, options.network_g, quantization_map, file, method="DOBI", half=h) for h in (False, True)
    )
    graph = file.with_suffix(".onnx")
    save_onnx(network, graph, integer_linear=integer_linear)
    networks = {"trained": network, "8-bit grids": eight_bit_network(network, integer_linear=integer_linear)}
    threads = torch.get_num_threads()
    networks |= {
        label: RuntimeNetwork(graph, runtime, threads=threads, precision=precision)
        for label, (runtime, precision) in _labels().items()
    }
    return Variant(name, options.bit, packed, packed_half, graph, networks)


def _labels() -> dict[str, tuple[RuntimeName, Precision]]:
    """Return in what quantized graphs are run here: runtime and precision of what is not quantized, by the name of both."""
    return {
        label_of(runtime, precision): (runtime, precision)
        for runtime in installed_runtimes()
        for precision in native_precisions(runtime).values()
    }


def _full_precision_networks(case: Case, network: nn.Module, options: Options, folder: Path) -> Variant:
    graph = folder / "full_precision.onnx"
    save_onnx(network, graph)
    networks: dict[str, nn.Module] = {"PyTorch FP32": network}
    if case.plain is not None:
        plain = case.plain(options.scale).eval()
        plain.load_state_dict(network.state_dict())
        networks["PyTorch FP32, plain implementation"] = plain
    threads = torch.get_num_threads()
    for name in installed_runtimes():
        for own, precision in native_precisions(name).items():
            networks[f"{name} {own}"] = RuntimeNetwork(graph, name, threads=threads, precision=precision)
    size = 4 * sum(parameter.numel() for parameter in network.parameters())
    return Variant("32", 32, size, size // 2, graph, networks)


def _size_table(reference: Variant, variants: Sequence[Variant]) -> str:
    rows = [
        "| bits | packed (bytes) | ratio | rest in half precision | ratio | ONNX (bytes) |",
        "|---|---|---|---|---|---|",
    ]
    for v in (reference, *variants):
        ratios = [reference.packed / size for size in (v.packed, v.packed_half)]
        rows.append(
            f"| {v.name} | {v.packed:,} | {ratios[0]:.2f} | {v.packed_half:,} | {ratios[1]:.2f} | {v.graph.stat().st_size:,} |"
        )
    return "\n".join(rows)


def _latency_table(reference: Variant, variants: Sequence[Variant], milliseconds: dict[str, float]) -> str:
    torch_time = milliseconds["PyTorch FP32"]
    side = timed_picture().shape[-1]
    rows = [
        f"Median milliseconds for 1 x 3 x {side} x {side} on {torch.get_num_threads()} threads, all in turns.",
        "",
        "| bits | what runs | ms | times as fast as PyTorch FP32 | as the runtime's own FP32 |",
        "|---|---|---|---|---|",
    ]
    for name in reference.networks:
        rows.append(f"| 32 | {name} | {milliseconds[name]:.0f} | {torch_time / milliseconds[name]:.2f} | |")
    for v in variants:
        for label, (runtime, _) in _labels().items():
            time = milliseconds[f"{v.name}: {label}"]
            own = milliseconds[f"{runtime} FP32"] / time
            rows.append(f"| {v.name} | {label} | {time:.0f} | {torch_time / time:.2f} | {own:.2f} |")
    return "\n".join(rows)


def _instructions_table(variants: Sequence[Variant]) -> str:
    """Return latencies by instruction set, the first variant being the one to compare with."""
    names = [f"{v.bits} bits{v.name.removeprefix(str(v.bits))}" for v in variants]
    rows = [
        "Milliseconds in OpenVINO with products limited to the instructions of lesser processors, in parentheses how many times as "
        f"fast as {names[0]}.",
        "",
        f"| instructions | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    graphs = {name: v.graph for name, v in zip(names, variants, strict=True)}
    for instructions in instruction_sets() if "openvino" in installed_runtimes() else []:
        milliseconds = limited_latencies(instructions, graphs, torch.get_num_threads())
        if milliseconds is None:
            rows.append(f"| {instructions} |{' crashes |' * len(names)}")
            continue
        first, *others = milliseconds.values()
        cells = [f"{first:.0f}", *(f"{other:.0f} ({first / other:.2f})" for other in others)]
        rows.append(f"| {instructions} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _psnr_table(variants: Sequence[Variant], options: Options) -> str:
    dataset = psnr_dataset(options)
    names = list(variants[0].networks)
    rows = [
        f"PSNR on {dataset.name} in dB, in parentheses the fidelity to the quantized network in dB.",
        "",
        f"| bits | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for v in variants:
        evaluator = Evaluator(options.val, options.scale, v.networks["trained"])
        means = [evaluator.evaluate(network, dataset).means for network in v.networks.values()]
        cells = [f"{means[0]['psnr']:.4f}", *(f"{m['psnr']:.4f} ({m['fidelity']:.1f})" for m in means[1:])]
        rows.append(f"| {v.name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def psnr_dataset(options: Options) -> PairedDataset:
    """Return Set5 where it is laid out, or else the pictures of the validation."""
    datasets = [d for d in build_evaluation_sets(options.datasets_of("test"), options.scale) if d.name == "Set5"]
    return (datasets or build_evaluation_sets(options.datasets_of("val"), options.scale))[0]


def kernel_table(head: str, network: RuntimeNetwork) -> str:
    """Return a table of the kernels of a runtime that take most of the time, below a line that begins with `head`."""
    kernels: list[Kernel] = network.profile(timed_picture())
    total = sum(kernel.milliseconds for kernel in kernels)
    rows = [
        f"{head}: {total:.0f} ms, in integers {sum(k.milliseconds for k in kernels if k.integer):.0f} ms.",
        "",
        "| kernel | nodes | ms | share | integers |",
        "|---|---|---|---|---|",
    ]
    for k in kernels[:_KERNELS_SHOWN]:
        share = 100 * k.milliseconds / total
        rows.append(f"| {k.name} | {k.count} | {k.milliseconds:.1f} | {share:.0f} % | {'yes' if k.integer else ''} |")
    return "\n".join(rows)
