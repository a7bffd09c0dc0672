"""DFSQ: time, error and fidelity of the two ways to choose points, on all layers of EDSR-baseline x4.

Runs from the root of the repository, on the network and the pictures that it carries.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from basicsr.data import build_evaluation_sets, calibration_crops
from basicsr.evaluation.evaluator import Evaluator
from basicsr.networks.build import full_precision_network
from basicsr.networks.quantized import quantized_copy
from basicsr.quant.calibration import SubsetPoints
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.observe.capture import observe_quantizer_inputs
from basicsr.utils.devices import select_device
from basicsr.utils.options import Options, load_options
from basicsr.utils.registry import CALIBRATOR_REGISTRY

OPTIONS_FILE, NETWORK = "options/train/demo_DFSQ.yml", "network=edsr_baseline"
NUM_CROPS, CROP_SIZE = 32, 48
SELECTIONS = {
    "kmeans, 3 restarts (as published)": {"selection": "kmeans"},
    "kmeans, 5 restarts, 0 pinned (as released)": {
        "selection": "kmeans",
        "restarts": 5,
        "pin_zero": True,
        "keep_restart": "quantization_error",
    },
    "exact": {"selection": "exact"},
    "exact, 0 pinned": {"selection": "exact", "pin_zero": True},
}


@dataclass(frozen=True)
class Selected:
    """What one way to choose points gave for all activations of a network.

    Attributes:
        points: by the name of the quantizer.
        squared_errors: by the name of the quantizer: the sum of squared errors of all normalised values.
        statistics_seconds: for the passes through the network, with counting.
        selection_seconds: for choosing the points from the counts.
    """

    points: dict[str, SubsetPoints]
    squared_errors: dict[str, float]
    statistics_seconds: float
    selection_seconds: float


def run() -> str:
    """Return the two tables for 4, 3 and 2 bits."""
    changes = [
        NETWORK,
        "calibration:data=null",
        f"calibration:num_images={NUM_CROPS}",
        f"calibration:crop_size={CROP_SIZE}",
    ]
    return report(load_options(OPTIONS_FILE, changes), (4, 3, 2))


def report(options: Options, bits_to_try: Iterable[int]) -> str:
    """Return both tables: errors by kind of layer, and times and fidelity, for each number of bits and each of `SELECTIONS`."""
    device = select_device()
    full_precision = full_precision_network(options).to(device).eval().requires_grad_(False)
    crops = calibration_crops(options.calibration, options.datasets.get("train"), options.scale, 0).lq
    validation = build_evaluation_sets(options.datasets_of("val"), options.scale)
    evaluator = Evaluator(options.val, options.scale, full_precision)
    count, _, *size = crops.shape
    error_rows, time_rows = [], []
    for bits in bits_to_try:
        network, _ = quantized_copy(full_precision, options.model_copy(update={"bit": bits}), share_weights=True)
        calibrate_weights(network, options)
        found = {name: select(network, crops, choice) for name, choice in SELECTIONS.items()}
        for name, selected in found.items():
            for quantizer_name, points in selected.points.items():
                network.get_submodule(quantizer_name).load_calibration(points)
            values = [
                image["fidelity"]
                for dataset in validation
                for image in evaluator.evaluate(network, dataset).images.values()
            ]
            time_rows.append(
                f"| {bits} | {name} | {selected.statistics_seconds:.1f} | {selected.selection_seconds:.1f} "
                f"| {selected.statistics_seconds + selected.selection_seconds:.1f} | {sum(values) / len(values):.2f} |"
            )
        error_rows += error_table_rows(bits, found)
    return "\n".join(
        [
            f"DFSQ, {options.network_g['type']} x{options.scale}, coverage {options.quantization.coverage_name}, calibrated on {count} LR "
            f"crops of {size[0]} x {size[1]}; weights by MinMax for each output channel.",
            "",
            "Sum of squared errors of the normalised activations, in percent of that of the exact selection",
            "",
            f"| bits | normalisation | layers | exact (sum) | {' | '.join(list(SELECTIONS))} |",
            f"|---|---|---|---|{'---|' * len(SELECTIONS)}",
            *error_rows,
            "",
            "Seconds for the activations of all layers, and fidelity in dB to the full-precision output",
            "",
            "| bits | points | passes and counting (s) | selection (s) | together (s) | fidelity (dB) |",
            "|---|---|---|---|---|---|",
            *time_rows,
        ]
    )


def calibrate_weights(network: nn.Module, options: Options) -> None:
    """Set up the weight quantizers as the options say."""
    weights, quantizers = quantized_weights(network), dict(named_quantizers(network))
    for name, weight in weights.items():
        calibrator = CALIBRATOR_REGISTRY.build(options.calibration.weights, quantizers[name].spec, where="weights")
        quantizers[name].load_calibration(calibrate_tensor(calibrator, weight))


def select(network: nn.Module, crops: Tensor, choice: dict[str, object]) -> Selected:
    """Choose the points of all activations in one way.

    Args:
        network: with quantizers.
        crops: LR crops (N, 3, h, w).
        choice: options of the calibrator.
    """
    weights, device = quantized_weights(network), next(network.parameters()).device
    calibrators = {
        name: CALIBRATOR_REGISTRY.build({"type": "DFSQ", **choice}, quantizer.spec, where="activations")
        for name, quantizer in named_quantizers(network)
        if name not in weights
    }
    elements = dict.fromkeys(calibrators, 0)

    def callback(name: str):
        def look(tensor: Tensor) -> None:
            elements[name] += tensor.numel()
            calibrators[name].update(tensor)

        return look

    started = time.perf_counter()
    with torch.no_grad(), observe_quantizer_inputs(network, {name: callback(name) for name in calibrators}):
        for batch in crops.split(4):
            network(batch.to(device))
    for calibrator in calibrators.values():
        calibrator.end_pass()
    counted = time.perf_counter()
    points = {name: calibrator.finish() for name, calibrator in calibrators.items()}
    finished = time.perf_counter()
    errors = {name: found.mean_squared_error * elements[name] for name, found in points.items()}
    return Selected(points, errors, counted - started, finished - counted)


def error_table_rows(bits: int, found: dict[str, Selected]) -> list[str]:
    """Return a row for the layers whose input may be negative and one for those after a ReLU; SSE relative to `exact`."""
    rows = []
    exact = found["exact"]
    for label, post_relu in (("mean and max", False), ("max (after ReLU)", True)):
        names = [name for name, points in exact.points.items() if points.post_relu == post_relu]
        if names:
            best = sum(exact.squared_errors[name] for name in names)
            shares = [100 * sum(s.squared_errors[name] for name in names) / best for s in found.values()]
            cells = " | ".join(f"{share:.1f}" for share in shares)
            rows.append(f"| {bits} | {label} | {len(names)} | {best:.4g} | {cells} |")
    return rows
