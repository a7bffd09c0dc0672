"""Memory of upscale.py on a folder of pictures of which no two have the same size, by runtime.

A runtime that keeps what it prepared for each size grows without end on such a folder.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ROOT / "experiments/pretrained_models/EDSR_x4.safetensors"
FIRST = 10
RUNTIMES = ("openvino", "onnxruntime", "torch")
FOLDERS = ((1000, 16, 64), (40, 100, 200))  # number of pictures, smallest and largest side in pixels


def run() -> str:
    """Return a Markdown table: peak memory of the process over the first pictures of each folder, and over all."""
    lines = [
        f"Peak memory of `upscale.py` with EDSR-baseline x4 on {os.cpu_count()} cores, every picture of another size.",
        "",
        f"| pictures | sides (pixels) | runtime | first {FIRST} (MiB) | all (MiB) | difference (MiB) |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for number, shortest, longest in FOLDERS:
            few, all_ = (Path(name) / f"{number}_{part}" for part in ("first", "all"))
            write_pictures(few, FIRST, shortest, longest)
            write_pictures(all_, number, shortest, longest)
            for runtime in RUNTIMES:
                first, peak = (peak_memory(folder, runtime) for folder in (few, all_))
                place = f"{number:,} | {shortest} to {longest} | {runtime}"
                lines.append(f"| {place} | {first:.0f} | {peak:.0f} | {peak - first:.0f} |")
    return "\n".join(lines)


def write_pictures(folder: Path, number: int, shortest: int, longest: int) -> None:
    """Write noise of different sizes; the first pictures are the same whatever the number."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for index, (height, width) in zip(range(number), sizes(shortest, longest), strict=False):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:04}.png"), pixels)


def sizes(shortest: int, longest: int) -> Iterator[tuple[int, int]]:
    """Yield all heights and widths in the order of a seed."""
    side = longest + 1 - shortest
    for place in np.random.default_rng(1).permutation(side * side):
        yield int(shortest + place // side), int(shortest + place % side)


def peak_memory(folder: Path, runtime: str) -> float:
    """Return the largest memory of `upscale.py` on the pictures of a folder, in MiB."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", _PROGRAM, "basicsr/upscale.py", "-i", str(folder), "-o", output]
        arguments = ["--model", str(NETWORK), "--runtime", runtime, "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return int(done.stdout.split()[-1]) / 2**20


# the command as it is, in a process that tells its own peak when the command is done
_PROGRAM = """
import runpy, sys
from benchmarks.peak_memory import peak_memory
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as done:
    if done.code:
        raise
print(peak_memory())
"""
