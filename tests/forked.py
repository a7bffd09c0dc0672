"""Programs of Python in processes that are forked from one which has the package imported: they begin at once, not after seconds of imports.

Signals, exit codes, locks and files are those of any process. What differs between two starts of Python is not shown: that a program
imports what it needs, and that no result depends on the hashes of a process. A test of that starts its program anew.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")


class ForkedProgram:
    """A program in a forked process, with what tests use of `subprocess.Popen`; its output and its errors are one text.

    Args:
        words: file of the program, from the root of the checkout, and its arguments.
        folder: where it runs.
        environment: variables beside those of the tests.
        prelude: Python that runs in the process before the program.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, prelude: str = ""
    ) -> None:
        _start_server()
        self._own = tempfile.TemporaryDirectory()
        (Path(self._own.name) / "prelude.py").write_text(prelude, encoding="utf-8")
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._process = CONTEXT.Process(target=_become, args=(list(words), str(folder), variables, self._own.name))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the number of the signal that has ended the process, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for the end; return what was printed, and None in the place of a second text.

        Raises:
            subprocess.TimeoutExpired: it does not end in time, and is killed.
        """
        self._process.join(timeout)
        printed = (Path(self._own.name) / "printed").read_text(encoding="utf-8", errors="replace")
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0, printed)
        self._own.cleanup()
        return printed, None


def _start_server() -> None:
    """Start the process that forks, once; the path of its imports comes from a variable, which older versions of Python need."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "scripts")))
    with mock.patch.dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"):
        CONTEXT.set_forkserver_preload(["tests.forked_imports"])
        forkserver.ensure_running()


def _become(words: list[str], folder: str, environment: Mapping[str, str], own: str) -> None:
    """Turn the forked process into the program."""
    assert "basicsr.pipeline" in sys.modules, "The server has not imported tests/forked_imports.py."
    output = os.open(f"{own}/printed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    program = str(ROOT / words[0])
    sys.argv = [program, *words[1:]]
    sys.path[0] = str(Path(program).parent)
    runpy.run_path(f"{own}/prelude.py")
    runpy.run_path(program, run_name="__main__")
