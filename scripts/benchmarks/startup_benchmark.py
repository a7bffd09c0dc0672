"""How long a user waits for help and for what is wrong with the options, beside the import of torch, which a run waits for."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 7
TRAIN, TEST = "options/train/train_2DQuant_x4.yml", "options/test/test_2DQuant_x4.yml"
HELP = ("train.py", "test.py", "export.py", "upscale.py", "report.py", "sweep")
COMMANDS = {
    "`import torch` alone": ["-c", "import torch"],
    **{f"`{name} --help`": [f"basicsr/{name}", "--help"] for name in HELP},
    "train.py, an unknown option": ["basicsr/train.py", "-opt", TRAIN, "--force_yml", "train:totl_iter=3"],
    "test.py, a value of the wrong type": ["basicsr/test.py", "-opt", TEST, "--force_yml", "network_g:num_heads=[six]"],
    "test.py, absent weights": ["basicsr/test.py", "-opt", TEST, "--force_yml", "path:pretrain_network_FP=no.pth"],
    "upscale.py, an absent model": ["basicsr/upscale.py", "-i", "a.png", "-o", "out", "--model", "no.pth"],
    "sweep, an unknown run": ["basicsr/sweep", "-grid", "options/sweep/demo_ptq.yml", "--only", "nothing"],
}


def run() -> str:
    """Return a Markdown table: the median of the seconds of each command, all in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False, cwd=ROOT)
            seconds[name].append(time.perf_counter() - started)
    lines = [f"Medians of {ROUNDS} starts, commands in turn.", "", "| command | seconds |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {statistics.median(times):.2f} |" for name, times in seconds.items())])
