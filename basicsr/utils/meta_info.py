"""Lists of images as BasicSR writes them: a line `0001_s001.png (480,480,3)` each, in an LMDB folder with a level of compression behind."""

import re
from pathlib import Path

from basicsr.utils.errors import DataError, explained

_SIZE = re.compile(r"\s+\(\d+,\s*\d+(,\s*\d+)?\)(\s+\d+)?$")
_SHOWN = 60


def names_in_meta_info(file: str | Path) -> list[str]:
    """Return the names of the images in a list, in its order. Sizes may be left out; empty lines are passed over.

    Raises:
        DataError: the file cannot be read, names no image, or names one twice.
    """
    remedy = "Check the path, and that the file is a list of images."
    try:
        with explained(DataError, f"The list of images '{file}' cannot be read", remedy):
            lines = Path(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"The list of images '{file}' is no text. {remedy}") from error
    names = [_SIZE.sub("", line.strip()) for line in lines if line.strip()]
    if not names:
        raise DataError(f"The list of images '{file}' is empty. {remedy}")
    seen: set[str] = set()
    for name in names:
        if not Path(name).suffix:
            raise DataError(
                f"The list of images '{file}' has the line '{name[:_SHOWN]}', which begins with no name of a file. "
                "Each line is of the form 0001.png (480,480,3)."
            )
        if name in seen:
            raise DataError(f"The list of images '{file}' names '{name}' twice. Remove one line.")
        seen.add(name)
    return names
