"""Whole calibrations of the shipped networks: histograms by operators of torch against compiled loops, in turns in one process.

On the 32 crops of 64 x 64 LR pixels in keydata/demo_x4.json, at 4 bits and x4. Runs from the root of the repository.
"""

import statistics
import time
from pathlib import Path

import torch

from basicsr.models.quantized_model import QuantizedModel
from basicsr.pipeline import build_model, calibration_set
from basicsr.quant.kernels.counting import counting_loops
from basicsr.utils.options import load_options

REPOSITORY = Path(__file__).resolve().parents[2]
REPEATS = 3
RUNS = {
    "SwinIR-light, DOBI": ("demo_DOBI.yml", "swinir_light"),
    "EDSR-baseline, DOBI": ("demo_DOBI.yml", "edsr_baseline"),
    "EDSR-baseline, DFSQ": ("demo_DFSQ.yml", "edsr_baseline"),
    "RDN-small, DOBI": ("demo_DOBI.yml", "rdn_small"),
}
"""Options file and network."""


def run() -> str:
    """Return a Markdown table: medians of seconds, those of the clock and those of the processor, all threads together."""
    lines = [
        f"Calibration of a whole network, in seconds on {torch.get_num_threads()} threads, in parentheses those of the processor.",
        "",
        "| network | operators | loops | times as fast |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(_row(name, *run) for name, run in RUNS.items())])


def _row(name: str, recipe: str, network: str) -> str:
    options = load_options(
        REPOSITORY / "options/train" / recipe, [f"network={network}", "scale=4", "bit=4", "name=calibration"]
    )
    model = build_model(options, torch.device("cpu"))
    assert isinstance(model, QuantizedModel)  # both recipes quantize
    crops = calibration_set(options).lq
    model.calibrate(crops[:8])  # compiles, and warms caches
    times = [[_seconds(model, crops, loops) for loops in (False, True)] for _ in range(REPEATS)]
    clock, processor = ([[both[i] for both in turn] for turn in times] for i in (0, 1))
    medians = [[statistics.median(column) for column in zip(*kind, strict=True)] for kind in (clock, processor)]
    cells = " | ".join(f"{seconds:.1f} ({busy:.1f})" for seconds, busy in zip(*medians, strict=True))
    return f"| {name} | {cells} | {statistics.median(a / b for a, b in clock):.2f} |"


def _seconds(model: QuantizedModel, crops: torch.Tensor, loops: bool) -> tuple[float, float]:
    with counting_loops(loops):
        clock, processor = time.perf_counter(), time.process_time()
        model.calibrate(crops)
        return time.perf_counter() - clock, time.process_time() - processor
