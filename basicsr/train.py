"""Calibrate, distil or train a network.

python basicsr/train.py -opt options/train/train_2DQuant_x4.yml --force_yml bit=4 name=train_2DQuant_x4_bit4
torchrun --nproc_per_node=2 basicsr/train.py -opt ... --launcher pytorch
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file from a checkout: import the package beside it, not modules inside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr import chain
from basicsr.utils.command_line import run


def main(argv: list[str] | None = None) -> int:
    """Run one training; return the exit code."""
    return run(
        argv,
        __doc__,
        lambda options, root, device, arguments: chain.train(options, root, device, arguments.auto_resume),
        trains=True,
    )


if __name__ == "__main__":
    sys.exit(main())
