"""Ctrl-C and SIGTERM: finish the iteration, save, and leave with the exit code that a shell expects (130, 143)."""

import _thread
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_SECONDS = 0.01


class Interrupted(BaseException):
    """The run was asked to stop. Not an Exception, so that nothing but the command line handles it.

    Attributes:
        exit_code: 128 plus the number of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class _SendsAgain:
    """A `sys.unraisablehook` that sends a signal again whose exception nobody could get, and hands on all else.

    Python drops what is raised while it collects garbage or calls `__del__`, and a handler of signals may run there.
    """

    def __init__(self) -> None:
        self._others = sys.unraisablehook

    def __call__(self, unraisable: "sys.UnraisableHookArgs", /) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            # not threading.Thread: the collection may have begun while its locks are held
            _thread.start_new_thread(_send_soon, (unraisable.exc_value.exit_code - 128,))
        else:
            self._others(unraisable)


def _send_soon(signal_number: int) -> None:
    """Send a signal when the main thread has left the place where exceptions are dropped; if it has not, it is sent once more."""
    time.sleep(_AGAIN_SECONDS)
    signal.raise_signal(signal_number)


def raise_on_signals() -> None:
    """Let SIGINT and SIGTERM raise `Interrupted` wherever the run is; where Python would drop that, as soon as it is elsewhere."""
    if not isinstance(sys.unraisablehook, _SendsAgain):
        sys.unraisablehook = _SendsAgain()

    def handler(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


class StopRequest:
    """The first signal that came while signals were deferred, if any."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def raise_if_set(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM instead of raising, so that the caller can save first; a second one raises at once."""
    request = StopRequest()

    def handler(number: int, _frame: FrameType | None) -> None:
        if request.signal_number is not None:
            raise Interrupted(number)
        request.signal_number = number

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
