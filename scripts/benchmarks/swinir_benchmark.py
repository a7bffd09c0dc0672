"""Speed of SwinIR-light against the plain implementation in tests/archs/plain_swinir.py, with the same weights."""

import statistics
import time
from collections.abc import Callable

import torch

from basicsr.archs import build_network
from basicsr.utils.devices import select_device
from tests.archs.plain_swinir import PlainSwinIR

_REPEATS = 11


def run() -> str:
    """Return a Markdown table: median seconds of both implementations and the median of their ratios."""
    device = select_device()
    network = build_network({"type": "SwinIR", "upscale": 2}).to(device)
    plain = PlainSwinIR(2).to(device)
    plain.load_state_dict(network.state_dict())
    lines = [
        "SwinIR-light x2, float32; plain: mask computed in every pass, attention maps of the whole image in memory.",
        "",
        "| work | plain (s) | this package (s) | plain / this package | largest difference |",
        "|---|---|---|---|---|",
    ]
    for shape in ((1, 3, 96, 96), (1, 3, 128, 120), (4, 3, 64, 64)):
        x = torch.rand(shape, device=device)
        with torch.inference_mode():
            difference = (network(x) - plain(x)).abs().max().item()
            row = _compare(lambda x=x: plain(x), lambda x=x: network(x), device)
        lines.append(f"| inference {' x '.join(map(str, shape))} | {row} | {difference:.1e} |")
    x = torch.rand(2, 3, 64, 64, device=device)
    row = _compare(lambda: _training_step(plain, x), lambda: _training_step(network, x), device)
    lines.append(f"| forward and backward 2 x 3 x 64 x 64 | {row} | |")
    return "\n".join(lines)


def _training_step(network: torch.nn.Module, x: torch.Tensor) -> None:
    network.zero_grad()
    network(x).abs().mean().backward()


def _compare(plain: Callable[[], object], ours: Callable[[], object], device: torch.device) -> str:
    """Time both in turn, so that whatever else the machine does falls on both alike."""
    seconds: list[tuple[float, float]] = []
    for _ in range(_REPEATS + 1):
        seconds.append((_time(plain, device), _time(ours, device)))
    first, second = zip(*seconds[1:], strict=True)  # the first repeat warms up
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return f"{statistics.median(first):.3f} | {statistics.median(second):.3f} | {ratio:.2f}"


def _time(function: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
