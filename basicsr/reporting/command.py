"""From folders to files: what the command makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from basicsr.reporting.entries import read_folder
from basicsr.reporting.page import write_report
from basicsr.reporting.pictures import TILE_CROP, side_by_side, views_of
from basicsr.reporting.tables import Group, markdown
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import atomic_path, real_path
from basicsr.utils.image import write_image


@dataclass(frozen=True)
class Made:
    """What the command made.

    Attributes:
        table: the table in Markdown.
        page: the HTML file.
        crops: the picture of crops side by side; None where there are no pictures to cut them from.
    """

    table: str
    page: Path
    crops: Path | None

    def describe(self) -> str:
        """Return the table and, under it, where the files lie: the last lines that a user sees."""
        lines = [self.table, "", f"Page for the browser:  {self.page}"]
        lines += [f"Crops side by side:    {self.crops}"] if self.crops is not None else []
        return "\n".join(lines)


def make_report(folders: Sequence[Path], file: Path, title: str | None = None) -> Made:
    """Write the page of some folders, and beside it `table.md` and, where there are pictures, `comparison.png`.

    Args:
        folders: see `entries.read_folder`; one at least.
        file: the HTML file.
        title: heading of the page; by default the name of the folder that it goes to.

    Returns:
        The table, and the files.

    Raises:
        DataError: a folder holds no results, or a file of it is damaged.
        CheckpointError: a file cannot be written.
    """
    entries = [entry for folder in folders for entry in read_folder(folder)]
    groups = write_report(entries, file, title or real_path(file).parent.name)
    table = markdown(groups)
    beside = file.with_name("table.md")
    with explained(CheckpointError, f"'{beside}' could not be written"), atomic_path(beside) as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    picture = _crops(groups)
    crops = file.with_name("comparison.png") if picture is not None else None
    if crops is not None and picture is not None:
        write_image(crops, picture, smallest=True)
    return Made(table, file, crops)


def _crops(groups: Sequence[Group]) -> np.ndarray | None:
    """Return crops side by side of the first group that has pictures large enough for them; None where none has."""
    for group in groups:
        views, _ = views_of(group)
        large = [one for one in views if min(next(iter(one.images.values())).shape[:2]) >= TILE_CROP]
        if large:
            return side_by_side(group, large)
    return None
