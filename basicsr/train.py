"""Calibrate, distil or train a network.

python basicsr/train.py -opt options/train/train_2DQuant_x4.yml --force_yml bit=4 name=train_2DQuant_x4_bit4
torchrun --nproc_per_node=2 basicsr/train.py -opt ... --launcher pytorch
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


def _train(options: Options, root: Path, device: "torch.device", arguments: argparse.Namespace) -> None:
    from basicsr import chain  # imports torch

    chain.train(options, root, device, arguments.auto_resume)


def main(argv: list[str] | None = None) -> int:
    """Run one training; return the exit code."""
    return run(argv, __doc__, _train, trains=True)


if __name__ == "__main__":
    sys.exit(main())
