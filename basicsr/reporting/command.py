"""From folders to files: what the command makes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from basicsr.reporting.entries import read_folder
from basicsr.reporting.page import write_report
from basicsr.reporting.pictures import TILE_CROP, side_by_side, views_of
from basicsr.reporting.tables import Group, markdown
from basicsr.utils.errors import CheckpointError
from basicsr.utils.files import atomic_path
from basicsr.utils.image import write_image


def make_report(folders: Sequence[Path], file: Path, title: str | None = None) -> str:
    """Write the page of some folders, and beside it `table.md` and, where there are pictures, `comparison.png`.

    Args:
        folders: see `entries.read_folder`; one at least.
        file: the HTML file.
        title: heading of the page; by default the name of the folder that it goes to.

    Returns:
        The table in Markdown.

    Raises:
        DataError: a folder holds no results, or a file of it is damaged.
        CheckpointError: a file cannot be written.
    """
    entries = [entry for folder in folders for entry in read_folder(folder)]
    groups = write_report(entries, file, title or file.resolve().parent.name)
    table = markdown(groups)
    try:
        with atomic_path(file.with_name("table.md")) as temporary:
            temporary.write_text(table + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"'{file.with_name('table.md')}' could not be written: {error}. Free some space."
        ) from error
    picture = _crops(groups)
    if picture is not None:
        write_image(file.with_name("comparison.png"), picture, smallest=True)
    return table


def _crops(groups: Sequence[Group]) -> np.ndarray | None:
    """Return crops side by side of the first group that has pictures large enough for them; None where none has."""
    for group in groups:
        views, _ = views_of(group)
        large = [one for one in views if min(next(iter(one.images.values())).shape[:2]) >= TILE_CROP]
        if large:
            return side_by_side(group, large)
    return None
