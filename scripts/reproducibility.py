"""Run each command three times, in processes of their own: as it is, again, and with two threads; tell where the bits differ.

    python scripts/reproducibility.py --commands "train, QAT" test

The commands work on an EDSR of two blocks, or with `--large` on one of four wide ones and pictures of 256 x 256 pixels:
work is shared among threads only where tensors are large. Each process has another seed for the order of Python's sets.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from basicsr.utils.arguments import command_parser
from faults import jobs
from faults.results import contents, difference

WAYS = {"again": 1, "two threads": 2}
"""How a command is run the second and the third time, and with how many threads."""
_CODE = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from faults import jobs
jobs.NETWORK, jobs.OVERRIDES, jobs.TRAINING_OVERRIDES = {network!r}, {overrides!r}, {training!r}
sys.exit(jobs.JOBS[{name!r}].start(jobs.Inputs(Path({inputs!r})), Path({root!r}), False)())
"""
_LARGE: dict[str, object] = {"num_feat": 64, "num_block": 4}
_LARGE_CROPS = ["datasets:train:lq_size=64", "train:batch_size=4"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--commands", nargs="+", choices=jobs.JOBS, default=list(jobs.JOBS), metavar="NAME", help=", ".join(jobs.JOBS)
    )
    parser.add_argument("--large", action="store_true", help="on a network whose layers are shared among threads")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="reproducibility_") as folder:
        print(table(options, Path(folder)))
    return 0


def table(options: argparse.Namespace, folder: Path) -> str:
    """Return a table in Markdown: what differs where a command is run again, or with two threads."""
    if options.large:
        jobs.NETWORK, jobs.SIDE, jobs.TRAINING_OVERRIDES = _LARGE, 256, _LARGE_CROPS
    inputs = jobs.make_inputs(folder / "inputs")
    lines = [f"| command | {' | '.join(WAYS)} |", f"|---|{'---|' * len(WAYS)}"]
    for name in options.commands:
        expected = results(name, inputs, folder / f"{name} first", threads=1, seed=0)
        found = [
            difference(expected, results(name, inputs, folder / f"{name} {way}", threads, seed))
            for seed, (way, threads) in enumerate(WAYS.items(), start=1)
        ]
        lines.append(f"| {name} | {' | '.join(other or 'same bits' for other in found)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def results(name: str, inputs: jobs.Inputs, root: Path, threads: int, seed: int) -> dict[str, str]:
    """Run a command in a new process; return the digests of what it leaves.

    Raises:
        RuntimeError: it fails.
    """
    code = _CODE.format(
        paths=[str(ROOT), str(ROOT / "scripts")],
        network=jobs.NETWORK,
        overrides=[f"num_threads={threads}"],
        training=jobs.TRAINING_OVERRIDES,
        name=name,
        inputs=str(inputs.folder),
        root=str(root),
    )
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(seed)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"'{name}' fails:\n{done.stdout}{done.stderr}")
    return contents(root)


if __name__ == "__main__":
    sys.exit(main())
