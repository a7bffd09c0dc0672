"""Commands as processes that are forked from this one, which has everything imported: a trial begins in milliseconds, not seconds."""

import contextlib
import importlib
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import basicsr
from basicsr.sweep import execution
from basicsr.utils import locks
from faults.small_runs import leave_out_reports

Work = Callable[[], int]
POLL_SECONDS = 0.01
LONGEST_SECONDS = 900.0
"""After how long a command counts as one that hangs."""
_LATE = ("torch._dynamo", "torch.onnx", "matplotlib.figure", "lmdb")  # what the commands import when they need it


@dataclass(frozen=True)
class Ended:
    """How a process has ended.

    Attributes:
        code: exit code; minus the number of the signal that ended it; None for one that hung and was killed.
        output: what it printed.
        seconds: how long it took.
    """

    code: int | None
    output: str
    seconds: float


class Command:
    """A command that runs in a process of its own.

    Args:
        work: returns the exit code.
        log: takes what it prints.
        draws_report: whether a run ends with its report, whose figures take longer than the tiny training.
        lock_seconds: how long it waits for a folder that another one works in.
    """

    def __init__(self, work: Work, log: Path, draws_report: bool = False, lock_seconds: float | None = None) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        log.touch()
        self._log, self._started = log, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, log, draws_report, lock_seconds)

    def send(self, number: int) -> None:
        """Send a signal to the process, though not to what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def runs_after(self, seconds: float) -> bool:
        """Wait until the process is `seconds` old; return whether it still runs then."""
        while time.monotonic() - self._started < seconds:
            if self._has_ended():
                return False
            time.sleep(POLL_SECONDS)
        return not self._has_ended()

    def runs_for(self, seconds: float = POLL_SECONDS) -> bool:
        """Wait for some seconds from now; return whether the process still runs then."""
        return self.runs_after(time.monotonic() - self._started + seconds)

    def children(self) -> list[int]:
        """Return the numbers of the processes that it has started and that live."""
        with contextlib.suppress(OSError):
            return [int(text) for text in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def wait(self) -> Ended:
        """Wait for the end."""
        code: int | None = None
        if self.runs_for(LONGEST_SECONDS):
            self.send(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        output = self._log.read_text(encoding="utf-8", errors="replace")
        return Ended(code, output, time.monotonic() - self._started)

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def import_everything() -> None:
    """Import what the commands may need, and compute nothing: torch's threads do not live on in a forked process."""
    for module in pkgutil.walk_packages(basicsr.__path__, "basicsr."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _become(work: Work, log: Path, draws_report: bool, lock_seconds: float | None) -> None:
    """Turn a forked process into the command; never returns."""
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if not draws_report:
            leave_out_reports(_replace)
        if lock_seconds is not None:
            _replace(locks, "LOCK_SECONDS", lock_seconds)
        _replace(execution, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": _Forked}))
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class _Forked:
    """What a sweep needs of `subprocess.Popen`, for a Python file that is run by a fork instead of a Python that starts anew."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: IO[bytes],
        env: Mapping[str, str],
        start_new_session: bool,
        **_more: int,
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                if start_new_session:
                    os.setsid()
                for number in (1, 2):
                    os.dup2(stdout.fileno(), number)
                os.environ.update(env)
                sys.argv = list(command[1:])
                runpy.run_path(command[1], run_name="__main__")
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _replace(module: object, name: str, value: object) -> None:
    """Give a module another value under a name that it has."""
    assert hasattr(module, name)
    setattr(module, name, value)
