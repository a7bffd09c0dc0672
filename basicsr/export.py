"""Pack a quantized network into one small file, and check it on the test pictures; with --onnx write graphs for runtimes, too.

    python basicsr/export.py -opt options/test/test_2DQuant_x4.yml --force_yml bit=4 name=export_2DQuant_x4_bit4 \\
        path:pretrain_network_Q=experiments/train_2DQuant_x4_bit4/models/net_Q_latest.pth
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command knows."""
    parser.add_argument("--half", action="store_true", help="store what is not quantized in half precision")
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write ONNX graphs of the quantized and of the full-precision network, and run them by the installed runtimes",
    )
    parser.add_argument(
        "--float_linear",
        action="store_true",
        help="linear layers of the quantized graph multiply floating-point values of the codes instead of integers",
    )


def _export(options: Options, root: Path, device: "torch.device", arguments: argparse.Namespace) -> None:
    from basicsr.deploy.exporting import ExportOptions, export  # imports torch

    what = ExportOptions(half=arguments.half, onnx=arguments.onnx, integer_linear=not arguments.float_linear)
    export(options, root, device, what)


def main(argv: list[str] | None = None) -> int:
    """Pack one network; return the exit code."""
    return run(argv, __doc__, _export, add_arguments=add_arguments)


if __name__ == "__main__":
    sys.exit(main())
