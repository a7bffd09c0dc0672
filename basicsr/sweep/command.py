"""Run methods x architectures x scales x bits as separate processes, and make tables and plots of what they leave.

    python basicsr/sweep -grid options/sweep/demo_ptq.yml
    python basicsr/sweep -grid options/sweep/demo_ptq.yml --only '*_bit2' --jobs 2
    python basicsr/sweep -grid options/sweep/demo_ptq.yml --dry-run | --tables-only | --train-only
    python basicsr/sweep -grid options/sweep/2DQuant.yml --launcher slurm

A run that is finished is left as it is, one that was stopped continues, one that fails does not stop the others, and one whose
full-precision weights are not on disk is named and left out. The exit status is 0, 1 if a run failed, 2 if the grid cannot be used, 130 or 143 after Ctrl-C or SIGTERM.
"""

import argparse
import collections
import sys
from collections.abc import Sequence
from pathlib import Path

from basicsr.reporting.attempt import PACKAGES as REPORT_PACKAGES
from basicsr.sweep.cluster import PACKAGES, submit
from basicsr.sweep.digests import absent_weights
from basicsr.sweep.execution import Pool, Summary
from basicsr.sweep.goals import Goal, Measured, Trained
from basicsr.sweep.grid import Grid, load_grid
from basicsr.sweep.plan import Run, describe, plan, select
from basicsr.sweep.records import Places
from basicsr.sweep.results import write_tables
from basicsr.utils.arguments import command_parser, integer_from
from basicsr.utils.errors import OptionsError, UserError
from basicsr.utils.extras import require, usable
from basicsr.utils.signals import Interrupted

FAILURE, UNUSABLE = 1, 2


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


def report(line: str) -> None:
    """Tell the user."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for; return the exit status."""
    arguments = parse_arguments(argv)
    try:
        grid = load_grid(arguments.grid)
        root = arguments.root
        runs = plan(grid, root)
        places = Places(root, root / grid.output_folder, root / "results" / "sweeps" / grid.name / "logs")
        if arguments.tables_only:
            write_tables(grid.name, runs, places, report)
            return 0
        if arguments.launcher != "processes":
            for package in PACKAGES:
                require(package)
        usable(REPORT_PACKAGES)  # said before the runs, not after them
        goal = Trained() if arguments.train_only else Measured()
        chosen = unfinished(select(runs, arguments.only), goal, places, arguments.rerun, arguments.dry_run)
        if arguments.dry_run:
            return 0
        summary = work(grid, chosen, goal, places, arguments)
        if not arguments.train_only:
            finish(grid, runs, places, arguments)
        for name in summary.failed:
            report(f"failed: {name}")
        return FAILURE if summary.failed else 0
    except Interrupted as interrupt:
        report(f"Stopped by {interrupt}. The same command continues.")
        return interrupt.exit_code
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE


def finish(grid: Grid, runs: Sequence[Run], places: Places, arguments: argparse.Namespace) -> None:
    """Write the tables, or where runs are only submitted yet, say how."""
    if arguments.launcher == "slurm":
        report(f"When it is done: python basicsr/sweep -grid {arguments.grid} --tables-only")
    else:
        write_tables(grid.name, runs, places, report)


def unfinished(runs: Sequence[Run], goal: Goal, places: Places, rerun: bool, dry_run: bool) -> list[Run]:
    """Return the runs that are still to be done and can be, and report on all.

    Raises:
        OptionsError: results of another recipe are there, and `rerun` does not say that they may be replaced; or there is
            nothing but runs whose full-precision weights are not on disk.
    """
    waiting: list[Run] = []
    changed: list[str] = []
    absent: collections.Counter[str] = collections.Counter()
    for run in runs:
        state, remarks = goal.state(run, places)
        if state == "changed":
            changed.append(f"{run.name}: {'; '.join(remarks)}")
        weights = None if state == "finished" else absent_weights(run)
        if weights is not None:
            absent[weights] += 1
            continue
        if state != "finished":
            waiting.append(run)
        if dry_run:
            report_plan(run, goal, state, remarks, places)
    finished = len(runs) - len(waiting) - absent.total()
    report(f"{len(runs)} runs, {finished} of them finished.")
    for weights, number in absent.items():
        report(f"Left out: {number} runs, because their full-precision weights '{weights}' are not on disk.")
    if absent.total() == len(runs) and not dry_run:
        raise OptionsError(f"No run can be done. Put the weights there first: {', '.join(absent)}.")
    if changed and not (rerun or dry_run):
        raise OptionsError(
            "These results were made with another recipe than the grid has now. Call with --rerun to replace them, or give "
            "the grid another name and output.\n" + "\n".join(changed)
        )
    return waiting


def report_plan(run: Run, goal: Goal, state: str, remarks: Sequence[str], places: Places) -> None:
    """Report the state and the commands of a run."""
    report(f"# {run.name}: {state}{': ' + '; '.join(remarks) if remarks else ''}")
    if state == "finished":
        return
    for step, continues in goal.steps(run, places):
        report(describe(step, places.root, continues))


def work(grid: Grid, runs: Sequence[Run], goal: Goal, places: Places, arguments: argparse.Namespace) -> Summary:
    """Do the runs in the way that the arguments ask for."""
    if not runs:
        return Summary()
    if arguments.launcher == "processes":
        return Pool(goal, places, arguments.jobs or grid.jobs, report).work(runs)
    command = [
        sys.executable,
        str(Path(__file__).resolve().with_name("__main__.py")),
        "-grid",
        str(arguments.grid),
        "--root",
        str(places.root),
        "--jobs",
        "1",
    ]
    command += ["--rerun"] if arguments.rerun else []
    command += ["--train-only"] if arguments.train_only else []
    return submit(runs, command, grid.slurm, places.logs / "submitit", arguments.launcher, grid.name, report)
