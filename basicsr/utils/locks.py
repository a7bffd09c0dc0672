"""Locks that keep two processes from working on the same run. The system gives them up with the process, however it ends."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from basicsr.utils.errors import CheckpointError, explained


def take_lock(file: Path, seconds: float = 0.0) -> BaseFileLock | None:
    """Take the lock that a file stands for; the file and its folder are made, and the file stays when the lock is released.

    Args:
        file: the same for all who must not work at the same time.
        seconds: how long to wait for it.

    Returns:
        The lock, to be released with `release`; None if another process, or another part of this one, holds it.

    Raises:
        CheckpointError: the folder or the file cannot be made.
    """
    # not the default: the lock is the process's, whichever of its threads works on the run
    lock = FileLock(file, thread_local=False)
    with explained(CheckpointError, f"The folder '{file.parent}' cannot be set up"):
        file.parent.mkdir(parents=True, exist_ok=True)
    with explained(CheckpointError, f"The lock '{file}' cannot be taken"):
        try:
            lock.acquire(timeout=seconds, poll_interval=0.1)
        except Timeout:  # an OSError, too
            return None
    return lock


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
