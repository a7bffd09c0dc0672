"""Pictures a second of upscale.py over a folder, with its stages one after another and overlapped, in turns in one process."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from basicsr.deploy.folders import Stages
from basicsr.deploy.overlapping import overlapped
from basicsr.deploy.upscaling import enlarger, load_for_runtime

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ROOT / "experiments/pretrained_models/EDSR_x4.safetensors"
PICTURES, SIDES, ROUNDS = 8, (64, 128), 5
Files = Sequence[tuple[Path, Path]]


def run() -> str:
    """Return a Markdown table: medians, and the median of the ratios of neighbouring runs."""
    network = load_for_runtime(NETWORK, "openvino", threads=1)
    stages = Stages(enlarger(network, torch.device("cpu"), None), network.scale)
    lines = [
        f"EDSR-baseline x4 in OpenVINO on one thread, {PICTURES} PNG pictures; reading and writing have a thread each.",
        "",
        "| side (pixels) | one after another (pictures a second) | overlapped | ratio |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for side in SIDES:
            files = write_pictures(Path(name), side)
            pairs = [(speed(one_after_another, stages, files), speed(overlap, stages, files)) for _ in range(ROUNDS)]
            before, after = (statistics.median(speeds) for speeds in zip(*pairs, strict=True))
            ratio = statistics.median(second / first for first, second in pairs)
            lines.append(f"| {side} | {before:.2f} | {after:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def write_pictures(folder: Path, side: int) -> Files:
    """Write smooth pictures with some noise; returns them and where their enlargements go."""
    random, files = np.random.default_rng(0), []
    for index in range(PICTURES):
        coarse = random.random((side // 8, side // 8, 3))
        pixels = 255 * cv2.resize(coarse, (side, side)) + 4 * random.standard_normal((side, side, 3))
        place = folder / f"{side}_{index}.png"
        cv2.imwrite(str(place), pixels.clip(0, 255).astype(np.uint8))
        files.append((place, folder / f"{place.stem}_x4.png"))
    return files


def speed(way: Callable[[Stages, Files], None], stages: Stages, files: Files) -> float:
    """Return the pictures a second of one way through the stages."""
    started = time.perf_counter()
    way(stages, files)
    return len(files) / (time.perf_counter() - started)


def one_after_another(stages: Stages, files: Files) -> None:
    """Read, enlarge and write each picture before the next one is read."""
    for pair in files:
        stages.write(pair, stages.enlarge(pair, stages.read(pair)))


def overlap(stages: Stages, files: Files) -> None:
    """Do it as upscale.py does."""
    for _, error in overlapped(files, stages.read, stages.enlarge, stages.write):
        if error is not None:
            raise error
