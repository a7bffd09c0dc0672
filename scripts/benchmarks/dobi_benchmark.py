"""DOBI: time against the exhaustive loop over candidates, and what moving both bounds independently saves."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.quant.calibration import Bounds
from basicsr.quant.calibrators.base import calibrate_tensor
from basicsr.quant.calibrators.dobi_calibrator import DOBICalibrator
from basicsr.quant.spec import QuantSpec

NUM_ELEMENTS = 8_000_000
NUM_CANDIDATES = 100
BITS = 4
REPEATS = 3


def run() -> str:
    """Return both tables."""
    return f"{compare_with_exhaustive_loop()}\n\n{joint_savings(synthetic_tensors())}"


def compare_with_exhaustive_loop() -> str:
    """Time both searches on one long-tailed tensor, in turns; the table gives medians, ratio and both winners."""
    values = long_tailed(NUM_ELEMENTS)
    spec = QuantSpec(BITS)
    loop_seconds, seconds, ratios = [], [], []
    calibrate_tensor(DOBICalibrator(spec), values)
    for _ in range(REPEATS):
        loop_time, winner = _timed(lambda: exhaustive_winner(values, BITS, NUM_CANDIDATES))
        time_taken, bounds = _timed(lambda: calibrate_tensor(DOBICalibrator(spec, search="symmetric"), values))
        loop_seconds.append(loop_time)
        seconds.append(time_taken)
        ratios.append(loop_time / time_taken)
    found = winner_of(bounds, values, NUM_CANDIDATES)
    verdict = "same winner" if found == winner else "another winner"
    return "\n".join(
        [
            f"DOBI, {NUM_ELEMENTS / 1e6:g} million float32 elements, {BITS} bits, {NUM_CANDIDATES} candidates, "
            f"symmetric search, medians of {REPEATS} runs in turns",
            "",
            "| search | seconds | winner |",
            "|---|---|---|",
            f"| loop over all candidates | {statistics.median(loop_seconds):.3f} | {winner} |",
            f"| histogram and exact second pass | {statistics.median(seconds):.3f} | {found} |",
            f"| ratio | {statistics.median(ratios):.1f} | {verdict} |",
        ]
    )


def exhaustive_winner(values: Tensor, bits: int, num_candidates: int) -> int:
    """Return the best candidate of the symmetric search by quantizing the tensor with every one of them, in float32."""
    lowest, highest = values.min(), values.max()
    errors = []
    for i in range(num_candidates):
        shrinkage = (highest - lowest) * (i / (2 * num_candidates))
        lower, upper = lowest + shrinkage, highest - shrinkage
        scale = (upper - lower) / (2**bits - 1)
        quantized = torch.round((values.clamp(lower, upper) - lower) / scale) * scale + lower
        errors.append(torch.linalg.vector_norm(values - quantized))
    return int(torch.stack(errors).argmin())


def winner_of(bounds: Bounds, values: Tensor, num_candidates: int) -> int:
    """Return the candidate of the symmetric search that has these bounds."""
    lowest, highest = values.min().item(), values.max().item()
    return round((bounds.lower_bound.item() - lowest) / (highest - lowest) * 2 * num_candidates)


def joint_savings(tensors: Iterable[tuple[str, Tensor]], bits: int = BITS) -> str:
    """Return a table of mean squared errors of the searches for named tensors, relative to the symmetric one."""
    lines = [
        f"DOBI, {bits} bits: mean squared error of the searches, in percent of that of the symmetric search",
        "",
        "| tensor | auto | joint | auto takes |",
        "|---|---|---|---|",
    ]
    spec = QuantSpec(bits)
    for name, tensor in tensors:
        found = {
            search: calibrate_tensor(DOBICalibrator(spec, search=search), tensor)
            for search in ("symmetric", "auto", "joint")
        }
        symmetric, auto, joint = (bounds.mean_squared_error for bounds in found.values())
        shares = [100 * error / symmetric if symmetric else 100.0 for error in (auto, joint)]
        lines.append(f"| {name} | {shares[0]:.1f} | {shares[1]:.1f} | {found['auto'].search} |")
    return "\n".join(lines)


def long_tailed(num_elements: int) -> Tensor:
    """Return normal values of varying spread: bell-shaped with long tails."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2, num_elements, generator=generator)
    return normal[0] * normal[1].mul_(0.5).exp_()


def synthetic_tensors(num_elements: int = 400_000) -> Iterator[tuple[str, Tensor]]:
    """Yield the kinds of tensors that quantizers of SR networks meet."""
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(num_elements, generator=generator)
    yield "normal", normal
    yield "long-tailed", long_tailed(num_elements)
    yield "uniform", torch.rand(num_elements, generator=generator)
    yield "skewed", normal * 0.5 + torch.empty(num_elements).exponential_(generator=generator)
    yield "softmax rows", (normal.view(-1, 64) * 2).softmax(dim=1)
    yield "GELU", F.gelu(normal)
    yield "ReLU", F.relu(normal - 0.8)


def _timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result
