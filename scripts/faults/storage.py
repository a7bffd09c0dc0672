"""Faults of storage: a disk that is full at any moment, and folders that cannot be written."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from faults.campaign import LEFT_OUT, SAME, TOLD, Campaign, Trial, problem_of, tried
from faults.jobs import Job
from faults.processes import Work

_PAGE = 4096
_CAPABILITIES_VERSION_3 = 0x20080522
_BEYOND_PERMISSIONS = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root writes where nobody may


def full_disk(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """A file system that is full after a part of what the job writes, from none to nearly all; then there is space again."""
    reference = campaign.reference(job)
    written = _used(reference.folder)
    for index in range(campaign.number(job)):
        place = campaign.place()
        root = place / "disk"
        root.mkdir()
        space = int(written * (index + campaign.random.random()) / campaign.number(job)) // _PAGE * _PAGE + _PAGE
        if not _mounts(root, space):
            shutil.rmtree(place)
            yield Trial("disk full", job.name, LEFT_OUT, "no file system can be mounted")
            return
        try:
            yield from _when_full(campaign, job, place, root)
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True)
            shutil.rmtree(place, ignore_errors=True)


def _when_full(campaign: Campaign, job: Job, place: Path, root: Path) -> Iterator[Trial]:
    ended = job.run(campaign.inputs, root, False, place / "log0", draws_report=campaign.random.random() < 0.1).wait()
    problem = problem_of(ended, job.told)
    subprocess.run(["mount", "-o", "remount,size=1g", str(root)], check=True)
    problem = problem or campaign.finish(job, root, place / "log")
    if problem:
        shutil.copytree(root, kept := campaign.place() / "disk", dirs_exist_ok=True)
        shutil.copytree(place, kept.parent / "logs", ignore=lambda *_: ["disk"])
        place = kept.parent
    outcome = SAME if ended.code == 0 else TOLD
    yield tried(place, "disk full", job.name, problem, outcome)


def short_files(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """A limit of the length of a file (`ulimit -f`), so that larger ones cannot be written; then there is none."""
    sizes = [file.stat().st_size for file in campaign.reference(job).folder.rglob("*") if file.is_file()]
    for index in range(campaign.number(job)):
        place = campaign.place()
        limit = int(max(sizes) * (index + campaign.random.random()) / campaign.number(job))
        limited = _limited(job.start(campaign.inputs, place / "root", False), limit)
        ended = job.doing(limited).run(campaign.inputs, place / "root", False, place / "log0").wait()
        problem = problem_of(ended, job.told) or campaign.finish(job, place / "root", place / "log")
        yield tried(place, "length of files limited", job.name, problem, SAME if ended.code == 0 else TOLD)


def read_only(campaign: Campaign, job: Job) -> Iterator[Trial]:
    """Folders that lose the right to be written, one or all of them, before the command or while it works; then they have it again."""
    reference = campaign.reference(job)
    folders = [Path("."), *(f.relative_to(reference.folder) for f in reference.folder.rglob("*") if f.is_dir())]
    for index in range(campaign.number(job)):
        place = campaign.place()
        root = place / "root"
        folder = folders[index % len(folders)]
        early = bool(index // len(folders) % 2)
        (root / folder if early else root).mkdir(parents=True)
        closed = [root / folder] if early else []
        bare = _without_privilege(job.start(campaign.inputs, root, False))
        _close(closed)
        command = job.doing(bare).run(campaign.inputs, root, False, place / "log0")
        if not early:
            command.runs_after(campaign.random.uniform(0, reference.seconds))
            closed = [f for f in (root / folder, *(root / folder).rglob("*")) if f.is_dir()]
            _close(closed)
        ended = command.wait()
        for one in closed:
            if one.exists():
                one.chmod(0o755)
        problem = problem_of(ended, job.told) or campaign.finish(job, root, place / "log")
        yield tried(place, "read-only folder", job.name, problem, SAME if ended.code == 0 else TOLD)


def _close(folders: list[Path]) -> None:
    for folder in folders:
        if folder.exists():
            folder.chmod(0o555)


def _used(folder: Path) -> int:
    """Return the bytes that the files of a folder take in whole pages."""
    return sum(-(-file.stat().st_size // _PAGE) * _PAGE for file in folder.rglob("*") if file.is_file())


def _mounts(folder: Path, size: int) -> bool:
    """Mount a file system of a size in bytes; return whether that is possible, which it is for root alone."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _limited(work: Work, size: int) -> Work:
    def done() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails instead of ending the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return work()

    return done


def _without_privilege(work: Work) -> Work:
    """Return work that is done without the right of root to write anywhere."""

    def done() -> int:
        if os.geteuid() == 0:
            header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION_3, 0)
            sets = (ctypes.c_uint32 * 6)()
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.capget(header, sets) or _set(libc, header, sets):
                raise OSError(ctypes.get_errno(), "the right of root to write anywhere cannot be given up")
        return work()

    return done


def _set(libc: ctypes.CDLL, header: ctypes.Array, sets: ctypes.Array) -> int:
    for index in range(3):  # effective, permitted and inheritable, the low half of each
        sets[index] &= ~_BEYOND_PERMISSIONS
    return int(libc.capset(header, sets))
