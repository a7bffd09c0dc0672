"""A run small enough for tests: a SwinIR of 4 layers, or another tiny network, with random weights on a few demo pictures."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from basicsr.archs import build_network
from faults.small_runs import SMALL_NETWORKS, small_network, small_training
from tests.forked import ForkedProgram

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "options/train/demo_2DQuant.yml"
TEST = ROOT / "options/test/demo.yml"
NETWORKS = SMALL_NETWORKS
NETWORK = NETWORKS["SwinIR"]
OPTIONS_OF = {
    "SwinIR": "swinir_light",
    "EDSR": "edsr_baseline",
    "RCAN": "rcan",
    "RDN": "rdn",
    "MSRResNet": "msrresnet",
}  # in options/networks/
NUM_QUANTIZERS = 4 * 16


def save_network(path: Path, scale: int = 4, architecture: str = "SwinIR", **options) -> Path:
    """Save a network with seeded random weights, scaled up so that quantization matters."""
    torch.manual_seed(1)
    network = build_network({"type": architecture, "upscale": scale, **NETWORKS[architecture], **options})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save({"params": network.state_dict()}, path)
    return path


def overrides(folder: Path, *more: str, scale: int = 4, architecture: str = "SwinIR") -> list[str]:
    """Return overrides that make any shipped options file for an architecture a tiny run on the demo pictures."""
    weights = folder / f"fp_x{scale}.pth"
    if not weights.exists():
        save_network(weights, scale, architecture)
    return [*small_network(OPTIONS_OF[architecture], scale, NETWORKS[architecture], weights), *more]


def train_overrides(
    folder: Path,
    *more: str,
    scale: int = 4,
    architecture: str = "SwinIR",
    optimizers: Sequence[str] = ("optim_bound",),
) -> list[str]:
    """Return overrides for a training of 6 iterations that validates and saves after every second one."""
    demo = ROOT / "datasets/demo"
    return overrides(
        folder,
        "name=tiny",
        *small_training(demo / "train/HR", demo / "val/HR"),
        "datasets:train:num_images=4",
        *(f"train:{name}={{type: Adam, lr: 1e-3}}" for name in optimizers),
        *more,
        scale=scale,
        architecture=architecture,
    )


def run_train(folder: Path, *more: str, resume: bool = False, prelude: str = "") -> ForkedProgram:
    """Start basicsr/train.py in a forked process, without its report; `prelude` is Python that runs in it first."""
    words = ["basicsr/train.py", *_train_arguments(folder, more, resume)]
    return ForkedProgram(words, folder, prelude=f"{WITHOUT_REPORT}\n{prelude}")


def run_train_anew(folder: Path, *more: str, prelude: str = "") -> subprocess.Popen:
    """Start basicsr/train.py as a user does, with a Python of its own."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{prelude}\nfrom basicsr.train import main\nsys.exit(main())"
    program = ["-c", code] if prelude else [str(ROOT / "basicsr/train.py")]
    return subprocess.Popen(
        [sys.executable, *program, *_train_arguments(folder, more)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _train_arguments(folder: Path, more: Sequence[str], resume: bool = False) -> list[str]:
    arguments = ["-opt", str(TRAIN), "--root", str(folder), *(["--auto_resume"] if resume else [])]
    return [*arguments, "--force_yml", *train_overrides(folder, *more)]


WITHOUT_REPORT = "from faults.small_runs import leave_out_reports\nleave_out_reports()"
SLOW = """
import pathlib, time
from basicsr.models.ptq_model import PTQModel
step = PTQModel.optimize_parameters
def slow_step(self, batch):
    time.sleep(0.5)  # by the end of it, all loading processes have set up their signals
    pathlib.Path("started").touch()
    return step(self, batch)
PTQModel.optimize_parameters = slow_step
"""


PATIENCE = 900
"""After how many seconds a process counts as one that hangs; a busy machine may take minutes for what takes a second."""


def wait_for(file, process):
    """Wait until a process has made a file."""
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
