"""A campaign: its folder, its random numbers, what undisturbed commands leave, and the verdict on a disturbed one."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.jobs import Inputs, Job
from faults.processes import Ended
from faults.results import difference, half_written

SAME, TOLD, TAKEN, FAULT, LEFT_OUT = "same bits", "told", "taken as written", "fault", "not possible here"
"""Outcomes; text without a checksum is taken as it is written, where it can be read."""
_OF_AN_ITERATION = re.compile(r"/models/net_._\d+\.pth$|/training_states/\d+\.state$")


@dataclass(frozen=True)
class Trial:
    """What came of one disturbed command.

    Attributes:
        kind: of the fault that was put in.
        target: what it was put into.
        outcome: `SAME`, `TOLD`, `TAKEN`, `FAULT` or `LEFT_OUT`.
        details: what went wrong, or why nothing was tried.
    """

    kind: str
    target: str
    outcome: str
    details: str = ""


@dataclass(frozen=True)
class Reference:
    """What a job leaves when nothing disturbs it: a folder, the digests of its files, and its time in seconds."""

    folder: Path
    results: dict[str, str]
    seconds: float


@dataclass
class Campaign:
    """What all trials share.

    Attributes:
        folder: for everything that is written.
        inputs: what jobs read.
        random: chooses moments and places.
        trials: how many trials of a kind each job gets.
        stop_seconds: how long a process is stopped, at least; 0 for as long as the same command runs meanwhile.
    """

    folder: Path
    inputs: Inputs
    random: random.Random
    trials: int
    stop_seconds: int = 0
    _references: dict[str, Reference] = field(default_factory=dict)
    _count: int = 0

    def reference(self, job: Job) -> Reference:
        """Return what the job leaves undisturbed.

        Raises:
            RuntimeError: it fails.
        """
        if job.name not in self._references:
            place = self.place()
            ended = job.run(self.inputs, place / "root", False, place / "log").wait()
            if ended.code != 0:
                raise RuntimeError(f"'{job.name}' fails without any fault:\n{ended.output}")
            self._references[job.name] = Reference(place / "root", job.results(place / "root"), ended.seconds)
        return self._references[job.name]

    def number(self, job: Job) -> int:
        """Return how many trials of a kind the job gets: fewer where one takes long."""
        return max(1, round(self.trials * job.share))

    def place(self) -> Path:
        """Return a new folder for a trial."""
        self._count += 1
        place = self.folder / f"trial_{self._count}"
        place.mkdir(parents=True)
        return place

    def finish(self, job: Job, root: Path, log: Path, stopped: bool = False) -> str | None:
        """Run a job to its end where it was disturbed; return what is wrong then, None where its bits are the expected ones.

        Before it runs, no file of a final name may be half written: what reads it meanwhile must find all of it.

        Args:
            job: the job.
            root: where it was disturbed.
            log: takes what it prints.
            stopped: whether a training may have saved the iteration at which it ended, beside those of every run.
        """
        if problem := half_written(root):
            return problem
        problem = problem_of(job.run(self.inputs, root, True, log).wait(), told=())
        expected, found = self.reference(job).results, job.results(root)
        if stopped:
            found = {
                name: bits for name, bits in found.items() if name in expected or not _OF_AN_ITERATION.search(name)
            }
        return problem or difference(expected, found)


def problem_of(ended: Ended, told: tuple[int, ...]) -> str | None:
    """Return what is wrong with the way a process has ended; None for a good end, or for a code that goes with a sentence."""
    if ended.code is None:
        return "it hung"
    if "Traceback" in ended.output:
        return f"a traceback: {_tail(ended.output)}"
    if ended.code == 0:
        return None
    if ended.code not in told:
        return f"exit code {ended.code}: {_tail(ended.output)}"
    return None if ended.output.strip() else f"exit code {ended.code} without a word"


def _tail(output: str) -> str:
    return " / ".join(line.strip() for line in output.strip().splitlines()[-3:])[-600:]


Kind = Callable[[Campaign, Any], Iterator[Trial | None]]
"""Tries a fault on a job or another target; None says that it waits now, and that others may begin meanwhile."""


def tried(place: Path, kind: str, target: str, problem: str | None, outcome: str) -> Trial:
    """Return the trial; the folder of one that went well is removed."""
    if problem is not None:
        return Trial(kind, target, FAULT, f"{problem} (see {place})")
    shutil.rmtree(place, ignore_errors=True)
    return Trial(kind, target, outcome)
