"""Tables as Markdown, and the places of pages that hold them."""

import re
from collections.abc import Callable, Sequence

_PLACE = re.compile(r"(<!-- from (?P<source>[^>\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str, table_of: Callable[[str], str]) -> str:
    """Return a page with its tables made anew: each stands between `<!-- from SOURCE -->` and `<!-- end -->`.

    Args:
        text: the page.
        table_of: gives what belongs between, for a source.
    """
    return _PLACE.sub(lambda place: f"{place[1]}\n{table_of(place['source'])}\n\n{place[3]}", text)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a Markdown table, one line of text each, without a line break at the end.

    Args:
        lines: the first one is the head. A `|` in a cell is escaped.
    """
    head, *body = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))
