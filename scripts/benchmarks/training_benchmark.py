"""Iterations per second of full-precision training, with one speed option after the other switched on."""

import itertools
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from basicsr import pipeline
from basicsr.data import training_batches
from basicsr.models.sr_model import SRModel
from basicsr.training.teacher import gains_from_bfloat16
from basicsr.utils.options import load_options

REPEATS = 5
SECONDS = 2.0  # of a network with one set of options, in one repeat
WARM_UP = 2

OPTIONS = {
    "images loaded by workers, float32": (),
    "+ images held in memory": ("train:data_in_memory=true",),
    "+ channels_last": ("train:channels_last=true",),
    "+ bfloat16 autocast": ("train:autocast=bf16",),
    "+ cuDNN chooses by time": ("train:cudnn_benchmark=true",),
    "+ compiled": ("train:compile=default",),
    "+ CUDA graph": ("train:cuda_graphs=true",),
}
NETWORKS = {"SwinIR-light": "SwinIR", "EDSR-baseline": "EDSR"}
OPTIONS_OF = {"SwinIR": "swinir_light", "EDSR": "edsr_baseline"}  # in options/networks/
SIZES = {  # crops in a batch and their side in LR pixels
    ("SwinIR", "cpu"): (2, 32),
    ("EDSR", "cpu"): (8, 24),
    ("SwinIR", "cuda"): (32, 48),
    ("EDSR", "cuda"): (16, 48),
}
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Candidate:
    """A network in training with one set of options, and how fast it was."""

    step: Callable[[], object]
    device: torch.device
    note: str = ""
    rates: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Train for a while and note the iterations per second."""
        started, iterations = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS:
            self.step()
            iterations += 1
            if self.device.type == "cuda" and iterations % 10 == 0:
                torch.cuda.synchronize(self.device)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.rates.append(iterations / (time.perf_counter() - started))


def run() -> str:
    """Return a Markdown table: medians of iterations per second, each network's options taking turns."""
    logging.getLogger("basicsr").setLevel(logging.ERROR)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    columns = {}
    for device, (title, architecture) in itertools.product(devices, NETWORKS.items()):
        batch, side = SIZES[architecture, device.type]
        columns[f"{title}, {device.type}, {batch} x {side} x {side}"] = compare(architecture, device, batch, side)
    lines = [
        "Full-precision training at x4: iterations per second with the options up to each line, and the ratio to the line above.",
        "",
        f"| options | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    lines += [f"| {option} | {' | '.join(column[option] for column in columns.values())} |" for option in OPTIONS]
    return "\n".join(lines)


def compare(architecture: str, device: torch.device, batch: int, side: int) -> dict[str, str]:
    """Train one network with more and more options, in turns; return the cell of each option."""
    candidates: dict[str, Candidate | str] = {}
    overrides: list[str] = []
    for option, changes in OPTIONS.items():
        reason = why_not(option, architecture, device)
        if reason:
            candidates[option] = reason
            continue
        overrides += changes
        candidates[option] = start(architecture, device, batch, side, overrides)
    measured = [candidate for candidate in candidates.values() if isinstance(candidate, Candidate)]
    for _ in range(REPEATS):
        for candidate in measured:
            candidate.measure()
    cells, before = {}, None
    for option, candidate in candidates.items():
        if isinstance(candidate, str):
            cells[option] = candidate
            continue
        rate = statistics.median(candidate.rates)
        ratio = (
            f" ({statistics.median(b / a for a, b in zip(before, candidate.rates, strict=True)):.2f})" if before else ""
        )
        cells[option] = f"{rate:.2f}{ratio}{candidate.note}"
        before = candidate.rates
    return cells


def why_not(option: str, architecture: str, device: torch.device) -> str:
    """Return why an option is left out on a device; empty if it is not."""
    if option in ("+ cuDNN chooses by time", "+ CUDA graph") and device.type != "cuda":
        return "-"
    if option == "+ bfloat16 autocast" and not gains_from_bfloat16(device):
        return "not faster"
    if option == "+ compiled" and device.type == "cpu" and architecture == "SwinIR":
        return "takes many minutes"
    return ""


def start(architecture: str, device: torch.device, batch: int, side: int, overrides: list[str]) -> Candidate:
    """Build a training run as `basicsr/train.py` does, and take the first steps."""
    options = load_options(
        ROOT / "options/train/train_FP.yml",
        [
            f"network={OPTIONS_OF[architecture]}",
            f"datasets:train:dataroot_gt={ROOT / 'datasets/demo/train/HR'}",
            "datasets:train:dataroot_lq=null",
            f"datasets:train:lq_size={side}",
            f"train:batch_size={batch}",
            f"train:num_workers={8 if device.type == 'cuda' else 2}",
            "train:data_in_memory=false",
            *overrides,
        ],
    )
    torch.manual_seed(0)
    model = pipeline.build_model(options, device)
    assert isinstance(model, SRModel)
    batches = training_batches(pipeline.training_set(options, device), options.train, 0, 0)
    candidate = Candidate(lambda: model.optimize_parameters(next(batches)), device)
    for _ in range(WARM_UP):
        candidate.step()
    used = model.gradients.compiles, model.gradients.records
    asked = options.train.model_extra["compile"] != "none", options.train.model_extra["cuda_graphs"]
    candidate.note = "" if used == asked else ", failed: done without"
    return candidate
