"""Tables as Markdown."""

from collections.abc import Sequence


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a Markdown table, one line of text each, without a line break at the end.

    Args:
        lines: the first one is the head. A `|` in a cell is escaped.
    """
    head, *body = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))
