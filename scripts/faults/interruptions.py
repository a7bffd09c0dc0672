"""Faults of processes: killed, stopped for a while, started twice, left without their workers, or with a clock that was set back."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults.campaign import SAME, TOLD, Campaign, Trial, problem_of, tried
from faults.jobs import Job
from faults.processes import Command, Ended, Work

_DAY = 86400.0
_MOST_KILLS = 3
_SHORT_STOP = 1.0


def killed(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """SIGKILL at random moments, up to three in a row, then the command once more."""
    for _ in range(campaign.number(job)):
        place = campaign.place()
        for index in range(campaign.random.randint(1, _MOST_KILLS)):
            _signalled(campaign, job, place, signal.SIGKILL, index)[0].wait()
        problem = campaign.finish(job, place / "root", place / "log")
        yield tried(place, "SIGKILL", job.name, problem, SAME)


def stopped(campaign: Campaign, job: Job) -> Iterator[Trial | None]:
    """SIGSTOP at a random moment, the same command meanwhile, then SIGCONT: the second is told, the first goes on.

    Where the stop lasts, all trials of the job are begun together, and None says that others may begin theirs. At its end the
    command is started a third time: whatever waits for a lock must not take it from a process that lives.
    """
    number, lasts = campaign.number(job), campaign.stop_seconds > 0
    together = number if lasts else 1
    for begun in range(0, number, together):
        stops = [_stop(campaign, job) for _ in range(begun, begun + together)]
        if lasts:
            yield None
        for stop in stops:
            yield _continued(campaign, job, stop)


@dataclass(frozen=True)
class _Stop:
    """A command that was stopped, with what it had started or alone, and the same command that was started meanwhile.

    Attributes:
        place: folder of the trial.
        command: what was stopped.
        children: processes of it that were stopped, too.
        end: when the stop is over, by the clock of `time.monotonic`.
        second: how the command that was started meanwhile has ended.
    """

    place: Path
    command: Command
    children: list[int]
    end: float
    second: Ended


def _stop(campaign: Campaign, job: Job) -> _Stop:
    """Start a job and stop it while it runs, then start it once more and wait for that."""
    runs, latest = False, 1.0
    while not runs:  # it had ended before: earlier, then
        place = campaign.place()
        command, runs = _signalled(campaign, job, place, signal.SIGSTOP, latest=latest)
        latest *= 0.8
        if not runs:
            command.wait()
            shutil.rmtree(place)
    end = time.monotonic() + campaign.stop_seconds
    children = command.children() if campaign.random.random() < 0.5 else []
    _send(children, signal.SIGSTOP)
    return _Stop(place, command, children, end, _meanwhile(campaign, job, place, "log1"))


def _meanwhile(campaign: Campaign, job: Job, place: Path, log: str) -> Ended:
    return job.run(campaign.inputs, place / "root", True, place / log, lock_seconds=0.3).wait()


def _continued(campaign: Campaign, job: Job, stop: _Stop) -> Trial:
    """Wait for the end of a stop, let the command go on and judge what has come of it."""
    problem, name = problem_of(stop.second, job.told), "SIGSTOP"
    if campaign.stop_seconds:
        name = f"SIGSTOP for {campaign.stop_seconds} s"
        time.sleep(max(0.0, stop.end - time.monotonic()))
        third = _meanwhile(campaign, job, stop.place, "log2")
        problem = problem or problem_of(third, job.told)
        if third.code != stop.second.code:
            problem = problem or f"exit code {stop.second.code} when the stop began, {third.code} when it ended"
    stop.command.send(signal.SIGCONT)
    _send(stop.children, signal.SIGCONT)
    problem = problem_of(stop.command.wait(), job.told) or problem
    problem = problem or campaign.finish(job, stop.place / "root", stop.place / "log")
    return tried(stop.place, name, job.name, problem, TOLD if stop.second.code else SAME)


def _send(processes: list[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


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


def stopped_rank(campaign: Campaign, job: Job) -> Iterator[Trial | None]:
    """torchrun or one of the processes that it has started is stopped, then goes on: the others wait for it."""
    stops = []
    for _ in range(campaign.number(job)):
        place = campaign.place()
        command = job.run(campaign.inputs, place / "root", False, place / "log0")
        command.runs_after(campaign.random.uniform(0, campaign.reference(job).seconds))
        chosen = [campaign.random.choice([command.pid, *command.children()])]
        _send(chosen, signal.SIGSTOP)
        stops.append((place, command, chosen, time.monotonic() + max(_SHORT_STOP, campaign.stop_seconds)))
    if campaign.stop_seconds:
        yield None
    for place, command, chosen, end in stops:
        time.sleep(max(0.0, end - time.monotonic()))
        _send(chosen, signal.SIGCONT)
        problem = problem_of(command.wait(), ()) or campaign.finish(job, place / "root", place / "log")
        yield tried(place, "one process of two stopped", job.name, problem, SAME)


def clock_set_back(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """Killed at a random moment, then continued with a clock of the day before: all files are of the future."""
    for _ in range(campaign.number(job)):
        place = campaign.place()
        _signalled(campaign, job, place, signal.SIGKILL)[0].wait()
        _age(place / "root", -_DAY)
        back = _yesterday(job.start(campaign.inputs, place / "root", True))
        problem = campaign.finish(job.doing(back), place / "root", place / "log")
        yield tried(place, "clock set back", job.name, problem, SAME)


def _signalled(
    campaign: Campaign, job: Job, place: Path, number: int, index: int = 0, latest: float = 1.0
) -> tuple[Command, bool]:
    """Start a job and send it a signal at a random moment; return it, and whether it still ran then.

    Args:
        campaign: what all trials share.
        job: what is started; for the first time where `index` is 0.
        place: folder of the trial.
        number: of the signal.
        index: how often it was started before.
        latest: the last moment, as a share of the time that the job takes undisturbed.
    """
    command = job.run(campaign.inputs, place / "root", index > 0, place / f"log{index}")
    runs = command.runs_after(campaign.random.uniform(0, latest * campaign.reference(job).seconds))
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
