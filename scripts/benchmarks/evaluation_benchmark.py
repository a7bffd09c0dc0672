"""Where the time of test.py goes, by part, on Set14 x4 where it is laid out and else on the pictures that the repository carries.

Seconds are those of the processor, all threads together, so that other work on the machine does not count. The cost of a network is
counted in processes of their own: in the way of test.py, and in torch's own way, which imports its compiler for it.
"""

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from basicsr.data import build_evaluation_sets
from basicsr.data.base import PairedDataset
from basicsr.evaluation.evaluator import Evaluator
from basicsr.evaluation.inference import upscale
from basicsr.networks.build import network_to_test
from basicsr.utils.image import tensor_to_image
from basicsr.utils.options import load_options

ROOT = Path(__file__).resolve().parents[2]
OPTIONS_FILE = "options/test/demo_FP.yml"
NETWORKS = ("edsr_baseline", "swinir_light")
_SET14 = (
    "datasets:test_1={name: Set14, type: PairedImageDataset, dataroot_gt: datasets/benchmark/Set14/HR, "
    "dataroot_lq: datasets/benchmark/Set14/LR_bicubic/X4}"
)
ROUNDS = 3
COUNTING = """
import time
from basicsr.metrics import layer_costs
from basicsr.networks.build import network_to_test
from basicsr.utils.options import load_options
if {plain}:
    layer_costs._FlopCounter.__torch_dispatch__ = layer_costs.torch._disable_dynamo(layer_costs._FlopCounter.__torch_dispatch__)
network = network_to_test(load_options({file!r}, [{override!r}]))
started = time.process_time()
layer_costs.count_layers(network, (128, 128))
print(time.process_time() - started)
"""


class _Clock:
    """Seconds of the processor by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what the block takes."""
        started = time.process_time()
        yield
        self.seconds[name] += time.process_time() - started


def run() -> str:
    """Return Markdown tables: seconds of the parts of an evaluation, and of counting what a network costs."""
    parts = {network: _parts(network) for network in NETWORKS}
    rows = [
        f"Seconds of the processor for {next(iter(parts.values()))[0]}, full precision.",
        "",
        f"| part | {' | '.join(NETWORKS)} |",
        f"|---|{'---|' * len(NETWORKS)}",
    ]
    for name in next(iter(parts.values()))[1]:
        rows.append(f"| {name} | {' | '.join(f'{seconds[name]:.2f}' for _, seconds in parts.values())} |")
    for title, plain in (("cost of the network, as torch counts", True), ("cost of the network", False)):
        rows.append(f"| {title} | {' | '.join(f'{_counting(network, plain):.2f}' for network in NETWORKS)} |")
    return "\n".join(rows)


def _parts(network_name: str) -> tuple[str, dict[str, float]]:
    """Return what was evaluated, and the seconds of each part; pictures go one by one through the parts of `Evaluator.evaluate`."""
    options = load_options(OPTIONS_FILE, [f"network={network_name}"])
    datasets = [
        *build_evaluation_sets(load_options(OPTIONS_FILE, [_SET14]).datasets_of("test"), options.scale),
        *build_evaluation_sets(load_options(OPTIONS_FILE).datasets_of("test"), options.scale),
    ]
    network = network_to_test(options).eval()
    evaluator, clock = Evaluator(options.val, options.scale, network), _Clock()
    dataset = datasets[0]
    for index in range(len(dataset)):
        _measure(dataset, index, network, evaluator, clock)
    return f"{len(dataset)} pictures of {dataset.name}", clock.seconds


def _measure(dataset: PairedDataset, index: int, network: nn.Module, evaluator: Evaluator, clock: _Clock) -> None:
    with clock.part("reading"):
        pair = dataset[index]
    with clock.part("network"):
        output = upscale(network, pair["lq"][None])[0]
    with clock.part("conversion to 8 bits"):
        image, truth = tensor_to_image(output), tensor_to_image(pair["gt"])
    for name, metric in evaluator.metrics.items():
        with clock.part(f"metric {name}"):
            metric(*((image, truth) if metric.traits.compares == "hr" else (output, output)))


def _counting(network_name: str, plain: bool) -> float:
    """Return the median seconds of counting what a network costs, each in a process of its own."""
    program = COUNTING.format(plain=plain, file=OPTIONS_FILE, override=f"network={network_name}")
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    times = [
        float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout)
        for _ in range(ROUNDS)
    ]
    return statistics.median(times)
