"""Runs as processes: some at a time, each with its log; one that fails does not stop the others, a signal stops all of them."""

import collections
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch

from basicsr.sweep.goals import Goal
from basicsr.sweep.plan import Run, describe
from basicsr.sweep.records import Places, mark_beginning
from basicsr.utils.errors import CheckpointError, UserError, explained
from basicsr.utils.locks import Lock, is_taken, lock_of_run, take_lock
from basicsr.utils.signals import Interrupted, deferred_signals

POLL_SECONDS = 0.1
LAST_LINES = 8
Report = Callable[[str], None]


@dataclass
class Summary:
    """What became of the runs of a sweep.

    Attributes:
        finished: names of the runs that ended well.
        failed: names of the runs that did not.
        elsewhere: names of the runs that another process is working on.
    """

    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slot_environment(slot: int, jobs: int) -> dict[str, str]:
    """Return the environment of the runs in one of `jobs` slots: its share of the cores, and its GPU where there are several.

    An OMP_NUM_THREADS of the user's is kept where it is smaller than the share.
    """
    environment = dict(os.environ)
    given = environment.get("OMP_NUM_THREADS", "")
    share = max(1, cores() // jobs)
    threads = str(min(share, int(given)) if given.isdigit() and int(given) > 0 else share)
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if jobs > 1 and torch.cuda.device_count() > 1:
        named = environment.get("CUDA_VISIBLE_DEVICES", "")
        devices = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment


class ActiveRun:
    """A run in progress: one process after another, all of them writing to one log.

    A lock keeps a second sweep from working on the same run. A training process has a lock of its own: where the sweep that
    started it was killed and it lives on, or where the user started it, the run is left to it.

    Args:
        run: what to do.
        goal: what is wanted of it.
        places: the folders of the sweep.
        slot: which of the slots of parallel runs it has.
        jobs: the number of slots.

    Raises:
        BlockingIOError: another process works on the run.
        CheckpointError: the files of the lock or the log cannot be made.
    """

    def __init__(self, run: Run, goal: Goal, places: Places, slot: int, jobs: int) -> None:
        self.run, self.slot = run, slot
        self._places = places
        self._environment = slot_environment(slot, jobs)
        self._lock = self._take_lock()
        with explained(CheckpointError, f"The log '{places.log(run)}' cannot be made"):
            # without a buffer, so that nothing is left to write when it is closed on a full disk
            self._log: IO[bytes] = places.log(run).open("wb", buffering=0)
        self._steps = goal.steps(run, places)
        self._process: subprocess.Popen | None = None
        self.seconds = -time.monotonic()

    def _take_lock(self) -> Lock:
        lock = take_lock(self._places.lock(self.run))
        if lock is None:
            raise BlockingIOError
        if is_taken(lock_of_run(self._places.experiment(self.run))):
            lock.release()
            raise BlockingIOError
        return lock

    def advance(self) -> int | None:
        """Start the next process if none runs.

        Returns:
            None as long as there is work; then 0, or the exit status of the process that failed.
        """
        if self._process is not None:
            status = self._process.poll()
            if status is None or status != 0:
                return status
        step, continues = next(self._steps, (None, False))
        if step is None:
            return 0
        if step is self.run.train and not continues:
            mark_beginning(self.run, self._places)
        self._log.write(f"$ {describe(step, self._places.root, continues)}\n".encode())
        self._process = subprocess.Popen(
            step.command(self._places.root, continues),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # a Ctrl-C reaches it once, through `stop`, not from the terminal as well
        )
        return None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the process to stop, or with SIGKILL end it and all that it started."""
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def wait(self) -> None:
        """Wait until the process has ended."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """Close the log and give up the lock."""
        self.seconds += time.monotonic()
        self._log.close()
        self._lock.release()


class Pool:
    """Works through runs, `jobs` at a time.

    Args:
        goal: what is wanted of each run.
        places: the folders of the sweep.
        jobs: number of runs at the same time.
        report: takes lines for the user.
    """

    def __init__(self, goal: Goal, places: Places, jobs: int, report: Report) -> None:
        self._goal, self._places, self._jobs, self._report = goal, places, jobs, report
        self._active: list[ActiveRun] = []
        self._summary = Summary()
        self._number, self._total = 0, 0

    def work(self, runs: Sequence[Run]) -> Summary:
        """Do all runs; return what became of them.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the processes have been asked to stop and have ended. A second signal
                kills them.
        """
        waiting = collections.deque(runs)
        self._total = len(runs)
        with deferred_signals() as request:
            try:
                while waiting or self._active:
                    if request.signal_number is not None:
                        self._stop(signal.SIGTERM)
                        request.raise_if_set()
                    self._start(waiting)
                    self._look()
                    time.sleep(POLL_SECONDS)
            except BaseException:
                self._stop(signal.SIGKILL)
                raise
        return self._summary

    def _start(self, waiting: collections.deque[Run]) -> None:
        while waiting and len(self._active) < self._jobs:
            run = waiting.popleft()
            self._number += 1
            slot = min(set(range(self._jobs)) - {active.slot for active in self._active})
            try:
                active = ActiveRun(run, self._goal, self._places, slot, self._jobs)
            except BlockingIOError:
                self._summary.elsewhere.append(run.name)
                self._report(
                    f"[{self._number}/{self._total}] {run.name} is left out: another process is working on it."
                )
                continue
            if self._goal.state(run, self._places)[0] == "finished":  # by another sweep, while this one was busy
                active.close()
                self._summary.finished.append(run.name)
                continue
            self._active.append(active)
            self._report(f"[{self._number}/{self._total}] {run.name} begins, log {self._places.log(run)}")

    def _look(self) -> None:
        for active in list(self._active):
            try:
                status = active.advance()
            except (UserError, OSError) as error:
                self._end(active, f"failed: {error}")
                continue
            if status == 0:
                self._finish(active)
            elif status is not None:
                log = self._places.log(active.run)
                how = (
                    f"failed with exit status {status}"
                    if status > 0
                    else f"was ended by {signal.Signals(-status).name}"
                )
                self._end(active, f"{how}. The end of {log}:\n{last_lines(log)}")

    def _finish(self, active: ActiveRun) -> None:
        try:
            result = self._goal.conclude(active.run, self._places)
        except UserError as error:
            self._end(active, f"failed: {error}")
            return
        self._active.remove(active)
        active.close()
        self._summary.finished.append(active.run.name)
        self._report(f"{active.run.name} finished in {active.seconds:.0f} s: {result}")

    def _end(self, active: ActiveRun, message: str) -> None:
        self._active.remove(active)
        active.close()
        self._summary.failed.append(active.run.name)
        self._report(f"{active.run.name} {message}")

    def _stop(self, number: int) -> None:
        """End all processes and wait for them."""
        if self._active and number == signal.SIGTERM:
            self._report(f"Stopping {len(self._active)} runs, which save what they have; another signal kills them.")
        try:
            for active in self._active:
                active.stop(number)
            for active in self._active:
                active.wait()
        except Interrupted:
            for active in self._active:
                active.stop(signal.SIGKILL)
                active.wait()
            raise
        finally:
            for active in self._active:
                active.close()
            self._active = []


def last_lines(log: Path) -> str:
    """Return the last lines of a log, indented; of lines that a progress bar has overwritten only the last state."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.rpartition("\r")[2] for line in text.rstrip().replace("\r\n", "\n").split("\n")]
    return "\n".join(f"    {line}" for line in lines[-LAST_LINES:])
