"""Steps of trainings with quantizers: operators of torch against compiled loops, float32 against bfloat16, on the same network, in turns."""

import statistics
import time
from pathlib import Path

import torch

from basicsr.models.quantized_model import QuantizedModel
from basicsr.pipeline import build_model, calibration_set
from basicsr.quant.kernels.fused import fused_quantizers
from basicsr.utils.options import load_options

REPOSITORY = Path(__file__).resolve().parents[2]
REPEATS = 9
CROPS = 4  # of the calibration, whose bounds the time does not depend on
RUNS = {
    "SwinIR-light, 2DQuant": ("demo_2DQuant.yml", "swinir_light", 4, 32),
    "SwinIR-light, QAD": ("demo_QAD.yml", "swinir_light", 2, 32),
    "EDSR-baseline, 2DQuant": ("demo_2DQuant.yml", "edsr_baseline", 4, 32),
    "EDSR-baseline, QAD": ("demo_QAD.yml", "edsr_baseline", 2, 32),
    "EDSR-baseline, LSQ": ("demo_LSQ.yml", "edsr_baseline", 2, 32),
    "EDSR-baseline, ODM": ("demo_ODM.yml", "edsr_baseline", 2, 32),
    "RDN-small, QAD": ("demo_QAD.yml", "rdn_small", 2, 32),
}
"""Options file, network, crops in a step, and their side."""


def run() -> str:
    """Return a Markdown table: median milliseconds of the processor, all threads together, and the median of their ratios."""
    lines = [
        "A training step at 4 bits and x4, in milliseconds of the processor, teacher and student in the type of the column.",
        "",
        "| step | crops | operators, float32 | loops, float32 | loops, bfloat16 | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(name, *kind) for name, kind in RUNS.items())])


def _row(name: str, recipe: str, network: str, crops: int, side: int) -> str:
    exact, fast = (_calibrated(recipe, network, autocast) for autocast in ("off", "bf16"))
    scale = exact.options.scale
    batch = {"lq": torch.rand(crops, 3, side, side), "gt": torch.rand(crops, 3, scale * side, scale * side)}
    turns = [
        [_milliseconds(model, batch, fused) for model, fused in ((exact, False), (exact, True), (fast, True))]
        for _ in range(REPEATS + 1)
    ][1:]
    medians = [statistics.median(times) for times in zip(*turns, strict=True)]
    ratio = statistics.median(times[0] / times[-1] for times in turns)
    cells = " | ".join(f"{median:.0f}" for median in medians)
    return f"| {name} | {crops} x {side} x {side} | {cells} | {ratio:.2f} |"


def _calibrated(recipe: str, network: str, autocast: str) -> QuantizedModel:
    changes = [
        f"network={network}",
        "bit=4",
        "name=steps",
        *(f"train:{key}={autocast}" for key in ("autocast", "teacher_autocast")),
    ]
    options = load_options(REPOSITORY / "options/train" / recipe, changes)
    torch.manual_seed(0)
    model = build_model(options, torch.device("cpu"))
    assert isinstance(model, QuantizedModel)  # all of these runs quantize
    calibration = calibration_set(options).lq[:CROPS]
    model.calibrate(calibration)
    if model.trains_on == "crops":
        model.prepare(calibration)
    return model


def _milliseconds(model: QuantizedModel, batch: dict[str, torch.Tensor], fused: bool) -> float:
    with fused_quantizers(fused):
        start = time.process_time()
        model.optimize_parameters(batch)
        return 1000 * (time.process_time() - start)
