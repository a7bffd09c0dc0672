"""What the command does with the runs of a grid: which are left to do, that they are done, and the tables."""

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
from basicsr.sweep.grid import Grid
from basicsr.sweep.plan import Run, describe
from basicsr.sweep.records import Places
from basicsr.sweep.results import write_tables
from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import require, usable

FAILURE = 1


def report(line: str) -> None:
    """Tell the user."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def carry_out(grid: Grid, runs: Sequence[Run], chosen: Sequence[Run], arguments: argparse.Namespace) -> int:
    """Do with the chosen runs of a grid what the arguments ask for, and make the tables of all; return the exit status.

    Raises:
        UserError: something that the user gave cannot be used.
        Interrupted: the sweep was asked to stop.
    """
    root = arguments.root
    places = Places(root, root / grid.output_folder, root / "results" / "sweeps" / grid.name / "logs")
    if arguments.tables_only:
        write_tables(grid.name, runs, places, report)
        return 0
    if arguments.launcher != "processes":
        for package in PACKAGES:
            require(package)
    usable(REPORT_PACKAGES)  # said before the runs, not after them
    goal = Trained() if arguments.train_only else Measured()
    left = unfinished(chosen, goal, places, arguments.rerun, arguments.dry_run)
    if arguments.dry_run:
        return 0
    summary = work(grid, left, goal, places, arguments)
    if not arguments.train_only:
        finish(grid, runs, places, arguments)
    for name in summary.failed:
        report(f"failed: {name}")
    return FAILURE if summary.failed else 0


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
