"""Locks that keep two processes from working on the same run. The system gives them up with the process, however it ends."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from basicsr.utils import dist
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.logger import warn_once

LOCK_SECONDS = 8.0
"""How long a run waits for its folder: data loaders of one that was killed may live some seconds longer and hold its lock."""
_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)


class Lock(Protocol):
    """What keeps others out until it is released."""

    def release(self) -> None:
        """Give it up."""


class _NoLock:
    """Stands for a lock where the file system knows none."""

    def release(self) -> None:
        """Do nothing."""


def take_lock(file: Path, seconds: float = 0.0) -> Lock | None:
    """Take the lock that a file stands for; the file and its folder are made, and the file stays when the lock is released.

    Args:
        file: the same for all who must not work at the same time.
        seconds: how long to wait for it.

    Returns:
        The lock; None if another process, or another part of this one, holds it. On a file system without locks, such as some
        network drives, a warning says that nothing keeps others out.

    Raises:
        CheckpointError: the folder or the file cannot be made.
    """
    # not the default: the lock is the process's, whichever of its threads works on the run
    lock = FileLock(file, thread_local=False)
    with explained(CheckpointError, f"The folder '{file.parent}' cannot be set up"):
        file.parent.mkdir(parents=True, exist_ok=True)
    reason = _without_locks(file)
    if reason is not None:
        warn_once(
            f"Nothing in '{file.parent}' can be locked ({reason}). Make sure yourself that no second process works on the same run."
        )
        return _NoLock()
    with explained(CheckpointError, f"The lock '{file}' cannot be taken"):
        try:
            lock.acquire(timeout=seconds, poll_interval=0.1)
        except Timeout:  # an OSError, too
            return None
    return lock


def _without_locks(file: Path) -> str | None:
    """Return why the file system of a file has no locks; None where it has, or where this cannot be found out."""
    try:
        import fcntl
    except ImportError:  # Windows, whose locks filelock takes in another way
        return None
    try:
        opened = file.open("ab")
    except OSError:
        return None
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return None if error.errno in _HELD else error.strerror or str(error)
    return None


def claim(folder: Path) -> Lock:
    """Take the lock of the folder of a run.

    Raises:
        CheckpointError: another process has it.
    """
    lock = take_lock(lock_of_run(folder), LOCK_SECONDS)
    if lock is None:
        raise CheckpointError(
            f"Another process works on the run '{folder.name}' in '{folder}'. Wait for it to end, stop it, or give this run another name."
        )
    return lock


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep others out of the folder of a run for the length of a block; of several processes, the main one does so."""
    lock = claim(folder) if dist.is_main() else None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def is_taken(file: Path) -> bool:
    """Whether a process holds the lock that a file stands for. Holds it for a moment itself if none does."""
    if not file.is_file():
        return False
    lock = take_lock(file)
    if lock is not None:
        lock.release()
    return lock is None


def lock_of_run(experiment: Path) -> Path:
    """Return the file that stands for `experiments/<name>`: beside that folder, which is renamed when a run begins anew."""
    return experiment.with_name(f".{experiment.name}.lock")
