"""Seconds of the processor and peak memory against the number of calibration crops and against the size of a picture.

Each size has a process of its own, on one thread. The exponent is the slope of a line through logarithms: 1 is proportional.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ROOT / "experiments/pretrained_models/EDSR_x4.safetensors"
CROPS = (4, 8, 16, 32)
SIDES = (128, 256, 512)
TILE = 256
Cost = tuple[float, float]


def run() -> str:
    """Return two Markdown tables."""
    crops = {number: calibration(number) for number in CROPS}
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: enlarging(side, Path(folder)) for side in SIDES}
    calibrations = table("calibration crops", crops, list(crops))
    pixels = [side * side for side in sides]
    enlarged = table("side of the picture (pixels)", sides, pixels)
    return "\n\n".join(
        [
            "DOBI on EDSR-baseline x4, 4 bits, crops of 64 x 64, on one thread:",
            calibrations,
            f"`upscale.py` with EDSR-baseline x4 on one thread, tiles of {TILE}; exponents are against the number of pixels:",
            enlarged,
        ]
    )


def table(label: str, costs: dict[int, Cost], amounts: Sequence[int]) -> str:
    """Return the costs of each size, and the exponent of each column against the amount of work."""
    rows = [f"| {label} | seconds of the processor | peak memory (MiB) |", "|---|---|---|"]
    rows += [f"| {size} | {seconds:.1f} | {memory:.0f} |" for size, (seconds, memory) in costs.items()]
    columns = list(zip(*costs.values(), strict=True))
    rows.append("| exponent | " + " | ".join(f"{exponent(amounts, column):.2f}" for column in columns) + " |")
    return "\n".join(rows)


def exponent(amounts: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the line through the logarithms with the least squares."""
    x, y = ([math.log(value) for value in row] for row in (amounts, values))
    return float(np.polyfit(x, y, 1)[0])


def calibration(crops: int) -> Cost:
    """Return what it takes to calibrate on some crops, beyond what every process takes to start."""
    program = _CALIBRATION.format(
        overrides=["network=edsr_baseline", "bit=4", "calibration:data=null", f"calibration:num_images={crops}"]
    )
    return _measured([sys.executable, "-c", program])


def enlarging(side: int, folder: Path) -> Cost:
    """Return what it takes to enlarge one picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture = folder / f"{side}.png"
    cv2.imwrite(str(picture), pixels)
    arguments = ["-i", str(picture), "-o", str(folder / "out"), "--model", str(NETWORK), "--tile", str(TILE)]
    return _measured([sys.executable, "-c", _UPSCALING, *arguments, "--device", "cpu"])


def _measured(command: list[str]) -> Cost:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts"))),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory / 2**20


_TELLING = """
import json, time
from benchmarks.peak_memory import peak_memory
def tell(started):
    print(json.dumps([time.process_time() - started, peak_memory()]))
"""
_CALIBRATION = (
    _TELLING
    + """
import torch
from basicsr.pipeline import build_model, calibration_set
from basicsr.utils.options import load_options
options = load_options("options/train/demo_DOBI.yml", {overrides})
model, crops = build_model(options, torch.device("cpu")), calibration_set(options).lq
started = time.process_time()
model.calibrate(crops)
tell(started)
"""
)
_UPSCALING = (
    _TELLING
    + """
import sys
from basicsr.upscale import main
started = time.process_time()
if main(sys.argv[1:]):
    sys.exit(1)
tell(started)
"""
)
