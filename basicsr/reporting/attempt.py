"""A report at the end of a run that has ended well, whatever becomes of the report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from basicsr.utils.extras import usable
from basicsr.utils.logger import get_logger

if TYPE_CHECKING:
    from basicsr.reporting.entries import Entry


PACKAGES = ("jinja2", "matplotlib")
"""What a report needs beside the package's own."""


def attempt(file: Path, title: str, entries: Callable[[], "Sequence[Entry]"]) -> None:
    """Write the page of a run. What goes wrong with it is told in one sentence and not raised, as is a package that is missing.

    Args:
        file: the HTML file.
        title: heading of the page.
        entries: reads what the page shows; nothing is written where there is none.
    """
    if not usable(PACKAGES):
        return
    try:
        from basicsr.reporting.page import write_report  # imports matplotlib, which takes a second

        shown = entries()
        if shown:
            write_report(shown, file, title)
            get_logger().info("Report: %s", file)
    except Exception as error:  # a fault of the page must not cost the run
        reason = str(error).rstrip(".")
        get_logger().warning("The run has ended well, but its report '%s' could not be made: %s.", file, reason)
