"""Folders that end in .lmdb, as BasicSR's script makes them: encoded images in one file.

Such a folder holds data.mdb, and meta_info.txt with the names of the images. The key of `0001_s001.png` is `0001_s001`. Here an image
has the path `<folder>.lmdb/0001_s001.png`, as if it lay there as a file, so that whatever reads folders of images reads these, too.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from basicsr.utils.errors import DataError
from basicsr.utils.extras import require
from basicsr.utils.files import real_path
from basicsr.utils.logger import get_logger
from basicsr.utils.meta_info import names_in_meta_info

SUFFIX = ".lmdb"
_DATA, _LIST = "data.mdb", "meta_info.txt"
_HEAD, _TAIL = 4096, 64  # bytes of an image, for what it says of itself and for whether it is whole
_REMEDY = "Copy the folder again, or make it anew."

Taken = TypeVar("Taken")

_open: dict[Path, tuple[tuple[int, int], Any]] = {}
"""Databases that are open, with the state of their file: LMDB refuses to open one twice. Processes that are forked share them."""
_opening = threading.Lock()


def lmdb_folder_of(path: Path) -> Path | None:
    """Return the LMDB folder that an image lies in; None for a file."""
    return next((folder for folder in path.parents if folder.suffix == SUFFIX), None)


def lmdb_images(folder: Path) -> list[Path]:
    """Return the paths of the images in an LMDB folder that exists, sorted.

    Raises:
        DataError: the folder is no LMDB or is damaged, or it holds fewer images than its list names.
        OptionsError: the package lmdb is not installed.
    """
    for name in (_DATA, _LIST):
        if not (folder / name).is_file():
            raise DataError(
                f"The folder '{folder}' ends in {SUFFIX}, but holds no {name}. An LMDB folder has {_DATA} and {_LIST}; images as files go "
                "into a folder of another name."
            )
    names = names_in_meta_info(folder / _LIST)
    held = _database(folder).stat()["entries"]
    if held < len(names):
        raise DataError(f"'{folder / _LIST}' names {len(names)} images, but {_DATA} holds {held}. {_REMEDY}")
    if held > len(names):
        get_logger().warning(
            "'%s' holds %d images, of which meta_info.txt names %d; the others are left out.", folder, held, len(names)
        )
    return sorted(folder / name for name in names)


def read_from_lmdb(folder: Path, path: Path) -> bytes:
    """Return the encoded image at a path inside an LMDB folder.

    Raises:
        DataError: the folder is damaged or has no such image.
        OptionsError: the package lmdb is not installed.
    """
    return _stored(folder, path, bytes)


def ends_in_lmdb(folder: Path, path: Path) -> tuple[int, bytes]:
    """Return the number of bytes of an encoded image, and its first and last bytes put together; so a large folder is looked at soon.

    Raises:
        DataError: the folder is damaged or has no such image.
        OptionsError: the package lmdb is not installed.
    """
    return _stored(
        folder, path, lambda data: (len(data), bytes(data[:_HEAD]) + bytes(data[max(_HEAD, len(data) - _TAIL) :]))
    )


def _stored(folder: Path, path: Path, take: Callable[[memoryview], Taken]) -> Taken:
    """Return what is taken of the bytes of an image, which are valid within this call only."""
    lmdb = _lmdb()
    key = path.relative_to(folder).with_suffix("").as_posix()
    if not folder.is_dir():
        raise DataError(f"The LMDB folder '{folder}' does not exist. Check the path.")
    try:
        with _database(folder).begin(write=False, buffers=True) as transaction:
            data = transaction.get(key.encode())
            if data is not None:
                return take(data)
    except lmdb.Error as error:
        raise _damaged(folder, error) from error
    raise DataError(f"The LMDB folder '{folder}' has no image under the key '{key}'. {_REMEDY}")


def _lmdb() -> Any:
    return require("lmdb")


def _database(folder: Path) -> Any:
    """Return the open database of a folder; one that has been replaced since is opened anew."""
    lmdb, place = _lmdb(), real_path(folder)
    with _opening:
        try:
            state = (place / _DATA).stat()
            now = (state.st_mtime_ns, state.st_size)
            known, database = _open.get(place, (None, None))
            if known == now:
                return database
            if database is not None:
                database.close()
                del _open[place]
            # without a lock, a folder that is read-only or in use elsewhere opens, and a forked process may go on reading
            database = lmdb.open(str(place), readonly=True, lock=False, readahead=False)
        except (OSError, lmdb.Error) as error:
            raise _damaged(folder, error) from error
        _open[place] = now, database
        needed = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
        if now[1] < needed:  # reading behind the end would kill the process
            del _open[place]
            database.close()
            raise DataError(f"'{folder / _DATA}' has {now[1]} bytes of {needed}: it was copied in part. {_REMEDY}")
        return database


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"The LMDB folder '{folder}' cannot be read: {error}. {_REMEDY}")
