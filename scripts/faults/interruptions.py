"""Faults of processes: killed, stopped for a while, started twice, left without their workers, or with a clock that was set back."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from faults.campaign import SAME, TOLD, Campaign, Trial, problem_of, tried
from faults.jobs import Job
from faults.processes import Command, Ended, Work

_DAY = 86400.0
_MOST_KILLS = 3


def killed(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """SIGKILL at random moments, up to three in a row, then the command once more."""
    for _ in range(campaign.number(job)):
        place = campaign.place()
        for index in range(campaign.random.randint(1, _MOST_KILLS)):
            _signalled(campaign, job, place, signal.SIGKILL, index)[0].wait()
        problem = campaign.finish(job, place / "root", place / "log")
        yield tried(place, "SIGKILL", job.name, problem, SAME)


def stopped(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """SIGSTOP at a random moment, the same command meanwhile, then SIGCONT: the second is told, the first goes on."""
    for _ in range(campaign.number(job)):
        place = campaign.place()
        first, stops = _signalled(campaign, job, place, signal.SIGSTOP)
        second = job.run(campaign.inputs, place / "root", True, place / "log1", lock_seconds=0.3).wait()
        first.send(signal.SIGCONT)
        problem = problem_of(second, job.told) or problem_of(first.wait(), job.told)
        problem = problem or campaign.finish(job, place / "root", place / "log")
        yield tried(place, "SIGSTOP", job.name, problem, SAME if stops else TOLD)


def twice(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """Two processes in one folder: one works, or both do without getting into each other's way."""
    length = campaign.reference(job).seconds
    for _ in range(campaign.number(job)):
        place = campaign.place()
        first = job.run(campaign.inputs, place / "root", False, place / "log0", lock_seconds=0.3)
        first.runs_after(campaign.random.uniform(0, length / 2))
        second = job.run(campaign.inputs, place / "root", True, place / "log1", lock_seconds=0.3)
        problem = problem_of(second.wait(), job.told) or problem_of(first.wait(), job.told)
        problem = problem or campaign.finish(job, place / "root", place / "log")
        yield tried(place, "two processes", job.name, problem, SAME)


def without_worker(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """A process that loads images dies, then the command once more."""
    for _ in range(campaign.number(job) if job.processes else 0):
        place = campaign.place()
        command = job.run(campaign.inputs, place / "root", False, place / "log0")
        while not command.children() and command.runs_for():
            pass
        command.runs_after(campaign.random.uniform(0, campaign.reference(job).seconds))
        workers = command.children()
        if workers:
            os.kill(campaign.random.choice(workers), signal.SIGKILL)
        problem = problem_of(command.wait(), job.told) or campaign.finish(
            job, place / "root", place / "log", stopped=True
        )
        yield tried(place, "a worker dies", job.name, problem, SAME)


def without_rank(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """One of the processes that torchrun has started is killed, then the command once more."""
    for _ in range(campaign.number(job)):
        place = campaign.place()
        command = job.run(campaign.inputs, place / "root", False, place / "log0")
        command.runs_after(campaign.random.uniform(0, campaign.reference(job).seconds))
        ranks = command.children()
        if ranks:
            os.kill(campaign.random.choice(ranks), signal.SIGKILL)
        hung = command.wait().code is None
        said = "".join(file.read_text(errors="replace") for file in (place / "ranks").rglob("std*.log"))
        problem = "it hung" if hung else problem_of(Ended(0, said, 0.0), ())  # what torchrun says itself is not ours
        problem = problem or campaign.finish(job, place / "root", place / "log")
        yield tried(place, "one process of two killed", job.name, problem, SAME)


def clock_set_back(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """Killed at a random moment, then continued with a clock of the day before: all files are of the future."""
    for _ in range(campaign.number(job)):
        place = campaign.place()
        _signalled(campaign, job, place, signal.SIGKILL)[0].wait()
        _age(place / "root", -_DAY)
        back = _yesterday(job.start(campaign.inputs, place / "root", True))
        problem = campaign.finish(job.doing(back), place / "root", place / "log")
        yield tried(place, "clock set back", job.name, problem, SAME)


def _signalled(campaign: Campaign, job: Job, place: Path, number: int, index: int = 0) -> tuple[Command, bool]:
    """Start a job, for the first time where `index` is 0, and send it a signal at a random moment; tell whether it still ran then."""
    command = job.run(campaign.inputs, place / "root", index > 0, place / f"log{index}")
    runs = command.runs_after(campaign.random.uniform(0, campaign.reference(job).seconds))
    command.send(number)
    return command, runs


def _age(folder: Path, seconds: float) -> None:
    """Make files older, or with a negative number newer than now."""
    for file in folder.rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - seconds,) * 2)


def _yesterday(work: Work) -> Work:
    """Return work that is done with the clock of the day before."""
    now, local, text = time.time, time.localtime, time.strftime

    def done() -> int:
        time.time = lambda: now() - _DAY
        time.localtime = lambda seconds=None: local(now() - _DAY if seconds is None else seconds)
        time.strftime = lambda pattern, moment=None: text(pattern, time.localtime() if moment is None else moment)
        return work()

    return done
