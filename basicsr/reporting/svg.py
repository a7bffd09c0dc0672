"""Figures of matplotlib as SVG that stands inside a page: colours of the page, text as text, names of its own, no address."""

import io
import itertools
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow and black, which neither a white nor a dark page shows well; twins for dark pages in style.css
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#7b61c4")
MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
"""Markers of matplotlib, and the character that looks like each in a legend."""
INK, FAINT, AREA = "#1a2b3c", "#c1c2c3", "#b1b2b3"
"""Stand for the page's colours of text, of lines that stay behind, and of areas."""

_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    AREA: "var(--area)",
    **{colour: f"var(--c{i})" for i, colour in enumerate(COLOURS)},
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.3,
}
_OF_SHAPES = {"d", "transform", "x", "y", "width", "height"}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_numbers = itertools.count(1)


@contextmanager
def panel(width: float = 4.4, height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure with one panel in the style of the page.

    Args:
        width: in inches; all figures of a page have about the same, so that their text has the same size.
        height: in inches.
    """
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts draw it, not these
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def inline_svg(figure: Figure, description: str) -> str:
    """Return a figure as an element for an HTML page.

    Args:
        figure: made by `panel`, whose context is still open.
        description: what readers are told who cannot see it.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(text.getvalue())
    for child in list(root):
        if child.tag.endswith("metadata"):
            root.remove(child)
    prefix = f"f{next(_numbers)}-"
    for element in root.iter():
        _clean(element, prefix)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, prefix: str) -> None:
    """Take namespaces away, which HTML does not need, and make names and colours those of the page."""
    element.tag = element.tag.removeprefix(_SVG)
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        if key == "id":
            value = prefix + value
        elif key == f"{_XLINK}href":
            key, value = "href", value.replace("#", f"#{prefix}")
        else:
            value = value.replace("url(#", f"url(#{prefix}")
        if key in _OF_SHAPES:
            value = re.sub(r"(\d+\.\d{2})\d+", r"\1", value)  # no screen shows more
        if key == "style":
            for colour, variable in _VARIABLES.items():
                value = value.replace(colour, variable)
            value = re.sub(r"font: ([^;]*?)[^ ,;]+(, ?sans-serif)?(?=;|$)", r"font: \1sans-serif", value)
        element.set(key, value)
