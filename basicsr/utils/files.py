"""Writing files so that a reader never sees half of one, whenever the writer is stopped."""

import contextlib
import functools
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows, which replaces no open file
    fcntl = None  # type: ignore[assignment]

from basicsr.utils.errors import CheckpointError

_TEMPORARY_PREFIX = ".tmp-"
DOES_NOT_EXIST = "does not exist"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`; what was written there becomes `path` when the block ends well.

    The folder is made if it is absent. The temporary name starts with a dot and has the suffix of `path`, for writers that
    choose their format by it. If anything is raised, the temporary file is removed and an older `path` stays as it was. What
    killed writers left in the folder is removed when a process writes there for the first time.

    Args:
        path: the file to write.

    Yields:
        The path to write to, in the same folder and so on the same file system.

    Raises:
        OSError: the folder or file cannot be written, or the disk is full; callers name the file in a UserError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(real_path(path.parent))
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:
        with _held(temporary):
            yield temporary
            with temporary.open("rb+") as file:  # a rename may reach the disk before the data does
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def why_no_file(path: Path) -> str | None:
    """Return why a path cannot be read as a file, such as `does not exist` or `is a folder, not a file`; None for a file.

    Pipes and devices count as none: reading one may wait for ever.
    """
    mode = _mode(path)
    if isinstance(mode, str) or stat.S_ISREG(mode):
        return mode if isinstance(mode, str) else None
    return f"is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}, not a file"


def why_no_folder(path: Path) -> str | None:
    """Return why a path is no folder, such as `does not exist` or `is not a folder`; None for a folder."""
    mode = _mode(path)
    if isinstance(mode, str) or stat.S_ISDIR(mode):
        return mode if isinstance(mode, str) else None
    return "is not a folder"


def _mode(path: Path) -> int | str:
    """Return what kind of thing a path is, as the system says it, or why it cannot say."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is a link to nothing" if path.is_symlink() else DOES_NOT_EXIST
    except ValueError:  # of a null character, which no path can have
        return DOES_NOT_EXIST
    except OSError as error:  # a name that is too long, a link in a circle, a folder above that is closed
        return f"cannot be looked at ({error.strerror or error})"


def real_path(path: Path) -> Path:
    """Return a path without links, as `Path.resolve` does, but also one whose links go in a circle."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def _held(file: Path) -> Iterator[None]:
    """Make a file and lock it for the length of the block; the system gives the lock up with the process, however that ends."""
    if fcntl is None:
        yield
        return
    with file.open("wb") as opened:
        _lock(opened)
        yield


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file; return whether that was possible, which it is not where another one has the lock or there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@functools.cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of a folder that no living process writes."""
    if fcntl is None:
        return
    for file in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError), file.open("rb+") as opened:
            if _lock(opened):
                file.unlink()


def append_line(path: Path, line: str) -> None:
    """Append a line to a file for a record that grows; a writer that is killed leaves at most its last line unfinished.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def complete_lines(path: Path) -> list[str]:
    """Return the lines of a file that `append_line` wrote, but for a last one that is unfinished; none where there is no file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()


def require_weights(path: str | Path, option: str | None = None) -> None:
    """Refuse a file of weights that is not there.

    Args:
        path: of the file.
        option: what names it, for the message.

    Raises:
        CheckpointError: there is no such file.
    """
    if (problem := why_no_file(Path(path))) is not None:
        named = "" if option is None else f" of option '{option}'"
        raise CheckpointError(f"The file of weights '{path}'{named} {problem}; correct the path or put the file there.")


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, read piece by piece.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a writer left behind in a folder and below when it was killed."""
    for file in folder.rglob(f"{_TEMPORARY_PREFIX}*"):
        file.unlink(missing_ok=True)


def write_json(path: Path, data: Any, indent: int | None = 2) -> None:
    """Write `data` as JSON in UTF-8, atomically; indented, or in one line with `indent` None.

    Raises:
        OSError: see `atomic_path`.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
