"""Run methods x architectures x scales x bits as separate processes, and make tables and plots of what they leave.

    python basicsr/sweep -grid options/sweep/demo_ptq.yml
    python basicsr/sweep -grid options/sweep/demo_ptq.yml --only '*_bit2' --jobs 2
    python basicsr/sweep -grid options/sweep/demo_ptq.yml --dry-run | --tables-only | --train-only
    python basicsr/sweep -grid options/sweep/2DQuant.yml --launcher slurm

A run that is finished is left as it is, one that was stopped continues, one that fails does not stop the others, and one whose
full-precision weights are not on disk is named and left out. The exit status is 0, 1 if a run failed, 2 if the grid cannot be used, 130 or 143 after Ctrl-C or SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from basicsr.sweep.grid import load_grid
from basicsr.sweep.plan import plan, select
from basicsr.utils.arguments import command_parser, integer_from
from basicsr.utils.errors import UserError
from basicsr.utils.signals import Interrupted

UNUSABLE = 2


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    parser.add_argument("-grid", required=True, type=Path, metavar="FILE", help="the grid (YAML), see options/sweep/")
    parser.add_argument("--jobs", type=integer_from(1), metavar="N", help="runs at the same time; they share the cores")
    parser.add_argument("--only", metavar="GLOB", help="only the runs whose name matches, such as '*_DOBI_x4_*'")
    parser.add_argument("--rerun", action="store_true", help="replace results that were made with another recipe")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and what is finished")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--tables-only", action="store_true", help="make CSV, Markdown and plots of what is on disk")
    only.add_argument(
        "--train-only", action="store_true",
        help="make the networks in experiments/, also where records of them are there, for make_pictures.py; measure nothing",
    )  # fmt: skip
    parser.add_argument(
        "--launcher", choices=("processes", "slurm", "local"), default="processes",
        help="slurm: submit an array job through submitit; local: the same on this machine, to try it",
    )  # fmt: skip
    parser.add_argument(
        "--root", default=".", type=Path, metavar="FOLDER", help="where experiments/ and results/ are made"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for; return the exit status."""
    arguments = parse_arguments(argv)
    try:
        grid = load_grid(arguments.grid)
        runs = plan(grid, arguments.root)
        chosen = runs if arguments.tables_only else select(runs, arguments.only)
        from basicsr.sweep.command_work import carry_out  # imports torch

        return carry_out(grid, runs, chosen, arguments)
    except Interrupted as interrupt:
        sys.stdout.write(f"Stopped by {interrupt}. The same command continues.\n")
        return interrupt.exit_code
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
