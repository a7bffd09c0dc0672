"""Encoded images, from files and out of databases: the one place that knows both."""

import io
from pathlib import Path
from typing import BinaryIO

from basicsr.utils.errors import DataError, explained
from basicsr.utils.files import why_no_file
from basicsr.utils.lmdb_folders import ends_in_lmdb, lmdb_folder_of, read_from_lmdb


def read_bytes(path: Path) -> bytes:
    """Return an encoded image, from a file or out of a folder that ends in .lmdb.

    Raises:
        DataError: it does not exist, cannot be read or is empty.
    """
    folder = lmdb_folder_of(path)
    if folder is not None:
        data = read_from_lmdb(folder, path)
    elif (problem := why_no_file(path)) is not None:
        raise DataError(f"The image '{path}' {problem}. Check the path.")
    else:
        with explained(DataError, f"The image '{path}' cannot be read", "Check the path and its permissions."):
            data = path.read_bytes()
    if not data:
        raise DataError(f"The image '{path}' is empty (0 bytes). Copy or download it again.")
    return data


def open_ends(path: Path) -> BinaryIO:
    """Open an encoded image to look at its first and last bytes; one out of a database lacks what lies between.

    Raises:
        OSError: the file cannot be opened.
        DataError: the path is none of a file, or the database has no such image.
    """
    folder = lmdb_folder_of(path)
    if folder is not None:
        return io.BytesIO(ends_in_lmdb(folder, path)[1])
    if (problem := why_no_file(path)) is not None:
        raise DataError(f"The image '{path}' {problem}. Check the path.")
    return path.open("rb")


def length_of(path: Path) -> int:
    """Return the bytes of an encoded image.

    Raises:
        OSError: the file cannot be asked.
        DataError: the database has no such image.
    """
    folder = lmdb_folder_of(path)
    return path.stat().st_size if folder is None else ends_in_lmdb(folder, path)[0]
