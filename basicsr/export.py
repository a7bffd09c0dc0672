"""Pack a quantized network into one small file, and check it on the test pictures.

    python basicsr/export.py -opt options/test/test_2DQuant_x4.yml --force_yml bit=4 name=export_2DQuant_x4_bit4 \\
        path:pretrain_network_Q=experiments/train_2DQuant_x4_bit4/models/net_Q_latest.pth
"""

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file from a checkout: import the package beside it, not modules inside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.deploy.exporting import export
from basicsr.quant.spec import QuantizationError
from basicsr.utils.command_line import run
from basicsr.utils.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command knows."""
    parser.add_argument("--half", action="store_true", help="store what is not quantized in half precision")


def main(argv: list[str] | None = None) -> int:
    """Pack one network; return the exit code."""
    return run(
        argv,
        __doc__,
        lambda options, root, device, arguments: export(options, root, device, arguments.half),
        (UserError, QuantizationError),
        add_arguments=add_arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
