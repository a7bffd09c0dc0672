"""Steps of training and inference with freed memory kept (`keep_freed_memory`) and with the C library's own ways.

The setting holds for a process, so that processes with and without it take turns.
"""

import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from basicsr import pipeline
from basicsr.data import training_batches
from basicsr.models.base_model import Model
from basicsr.models.quantized_model import QuantizedModel
from basicsr.utils.memory import keep_freed_memory
from basicsr.utils.options import Options, load_options

ROUNDS = 3
REPEATS = 5
BATCH, SIDE = 4, 24  # of a step of training, LR pixels
INFERENCE_SIDE = 128
ROOT = Path(__file__).resolve().parents[2]
WORK = {
    "SwinIR-light, step of full-precision training": ("train_FP", "swinir_light"),
    "SwinIR-light, step of distillation (2DQuant)": ("demo_2DQuant", "swinir_light"),
    "EDSR-baseline, step of full-precision training": ("train_FP", "edsr_baseline"),
    "EDSR-baseline, step of distillation (2DQuant)": ("demo_2DQuant", "edsr_baseline"),
    f"EDSR-baseline, inference on {INFERENCE_SIDE} x {INFERENCE_SIDE}": ("demo_2DQuant", "edsr_baseline"),
}


def run() -> str:
    """Return a Markdown table: medians of seconds of both settings, and the median of their ratios."""
    seconds = {work: [(measure(work, False), measure(work, True)) for _ in range(ROUNDS)] for work in WORK}
    lines = [
        f"Batches of {BATCH} x {SIDE} x {SIDE}, x4; processes with and without freed memory kept in turn.",
        "",
        "| work | given back (s) | kept (s) | given back / kept |",
        "|---|---|---|---|",
    ]
    for work, pairs in seconds.items():
        before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(first / second for first, second in pairs)
        lines.append(f"| {work} | {before:.3f} | {after:.3f} | {ratio:.2f} |")
    return "\n".join(lines)


def measure(work: str, keep: bool) -> float:
    """Return the median seconds of some work in a process of its own."""
    program = f"import runpy; print(runpy.run_path({str(Path(__file__))!r})['median_seconds']({work!r}, {keep}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment
    )
    return float(done.stdout.split()[-1])


def median_seconds(work: str, keep: bool) -> float:
    """Time some work in this process, once it is warm."""
    logging.getLogger("basicsr").setLevel(logging.ERROR)
    if keep:
        keep_freed_memory()
    recipe, network = WORK[work]
    options = load_options(ROOT / f"options/train/{recipe}.yml", [f"network={network}", *overrides(recipe)])
    action = inference(options) if "inference" in work else training(options)
    times = []
    for _ in range(REPEATS + 2):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def overrides(recipe: str) -> tuple[str, ...]:
    """Return what makes a recipe a step on the pictures of the repository."""
    data = ("datasets:train:dataroot_gt=datasets/demo/train/HR", "datasets:train:dataroot_lq=null")
    size = (f"datasets:train:lq_size={SIDE}", f"train:batch_size={BATCH}", "train:data_in_memory=true")
    calibration = ("bit=4", "calibration:num_images=2") if recipe.startswith("demo") else ()
    return (*data, *size, *calibration)


def training(options: Options) -> Callable[[], object]:
    """Return a function that takes a step of training."""
    model = prepared(options)
    batches = training_batches(pipeline.training_set(options, model.device), options.train, 0, 0)
    return lambda: model.optimize_parameters(next(batches))


def inference(options: Options) -> Callable[[], object]:
    """Return a function that enlarges a picture with the quantized network."""
    network = prepared(options).network_for_evaluation()
    x = torch.rand(1, 3, INFERENCE_SIDE, INFERENCE_SIDE)

    def enlarge() -> None:
        with torch.inference_mode():
            network(x)

    return enlarge


def prepared(options: Options) -> Model:
    """Build the model of a run, calibrated if it quantizes."""
    torch.manual_seed(0)
    model = pipeline.build_model(options, torch.device("cpu"))
    if isinstance(model, QuantizedModel):
        model.calibrate(pipeline.calibration_set(options).lq)
    return model
