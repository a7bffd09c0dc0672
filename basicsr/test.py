"""Measure a full-precision or quantized network on the benchmarks.

    python basicsr/test.py -opt options/test/test_2DQuant_x4.yml --force_yml bit=4 name=test_2DQuant_x4_bit4 \\
        path:pretrain_network_Q=experiments/train_2DQuant_x4_bit4/models/net_Q_3200.pth
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file from a checkout: import the package beside it, not modules inside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.command_line import run
from basicsr.utils.options import Options

if TYPE_CHECKING:
    import torch


def _test(options: Options, root: Path, device: "torch.device", _arguments: argparse.Namespace) -> None:
    from basicsr import pipeline  # imports torch

    pipeline.test(options, root, device)


def main(argv: list[str] | None = None) -> int:
    """Run one evaluation; return the exit code."""
    return run(argv, __doc__, _test)


if __name__ == "__main__":
    sys.exit(main())
