"""Encoded images, from files and out of databases: the one place that knows both."""

from pathlib import Path

from basicsr.utils.errors import DataError, explained
from basicsr.utils.lmdb_folders import lmdb_folder_of, read_from_lmdb


def read_bytes(path: Path) -> bytes:
    """Return an encoded image, from a file or out of a folder that ends in .lmdb.

    Raises:
        DataError: it does not exist, cannot be read or is empty.
    """
    folder = lmdb_folder_of(path)
    if folder is not None:
        data = read_from_lmdb(folder, path)
    elif not path.exists():
        raise DataError(f"The image '{path}' does not exist. Check the path.")
    else:
        with explained(DataError, f"The image '{path}' cannot be read", "Check the path and its permissions."):
            data = path.read_bytes()
    if not data:
        raise DataError(f"The image '{path}' is empty (0 bytes). Copy or download it again.")
    return data
