"""A signal that comes where Python drops what is raised still stops the run."""

import signal
import subprocess
import sys

import pytest

from tests import tiny

PROGRAM = """
import gc, os, signal, sys, time, weakref
sys.path.insert(0, {root!r})
from basicsr.utils.signals import Interrupted, deferred_signals, raise_on_signals

left = {times}

def told(*_):
    global left
    if left:
        left -= 1
        os.kill(os.getpid(), signal.{name})
        time.sleep(0)  # Python looks for signals here, at the latest

class Deleted:
    __del__ = told

class Referred:
    pass

raise_on_signals()
raise_on_signals()  # as a program does that calls one command after the other
try:
{body}
    for _ in range(200):
        time.sleep(0.05)
        {while_waiting}
    print("swallowed")
except Interrupted as interrupt:
    print("stopped", interrupt.exit_code)
"""
BODIES = {
    "a callback of the garbage collection": "    gc.callbacks.append(told)\n    gc.collect()",
    "a __del__": "    Deleted()",
    "a callback of a weak reference": "    one = Referred()\n    kept = weakref.ref(one, told)\n    del one",
    "a second signal, when signals are deferred": "    left = 2\n    context = deferred_signals()\n    context.__enter__()\n    Deleted()\n    Deleted()",
}


def run(body, name="SIGTERM", times=1, while_waiting="pass"):
    code = PROGRAM.format(root=str(tiny.ROOT), body=body, name=name, times=times, while_waiting=while_waiting)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=tiny.PATIENCE)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signal_whose_exception_python_drops_comes_again(body, name):
    assert run(body, name) == (f"stopped {128 + signal.Signals[name]}", "")


def test_one_that_is_dropped_three_times_comes_a_fourth_time():
    assert run("    Deleted()", times=3, while_waiting="Deleted()") == ("stopped 143", "")


def test_other_exceptions_that_are_dropped_are_told_as_before():
    body = "    Deleted.__del__ = lambda self: 1 / 0\n    Deleted()\n    os.kill(os.getpid(), signal.SIGTERM)"
    output, errors = run(body)
    assert output == "stopped 143" and errors.count("ZeroDivisionError") == 1 and "Exception ignored in" in errors
