"""Write docs/results/README.md, the tables of docs/which-method.md and docs/training.md, and the figure of the README.

    python scripts/make_tables.py

The figure, docs/images/methods_bit2.svg, is drawn where matplotlib is installed.
Needs no experiments: the records under docs/results and the cards beside the networks hold all that the tables say. The tables and plots of one sweep are made by sweep.py --tables-only.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.sweep import card_table, guide
from basicsr.sweep.overview import FOLDER, overview, read_sweeps
from basicsr.sweep.plan import REPOSITORY
from basicsr.sweep.time_plot import draw_time
from basicsr.utils.arguments import command_parser
from basicsr.utils.errors import UserError
from basicsr.utils.extras import usable
from basicsr.utils.files import atomic_path

UNUSABLE = 2
FIGURE = Path("docs/images/methods_bit2.svg")
SHOWN = {"arch": "EDSR-baseline", "scale": 4, "w_bits": 2, "a_bits": 2}
"""The network and the bits of the figure: those of the README's table of methods."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; return the exit status."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--root", default=REPOSITORY, type=Path, metavar="FOLDER", help="folder that holds docs/results/"
    )
    root = parser.parse_args(argv).root
    file = root / FOLDER / "README.md"
    try:
        sweeps = read_sweeps(root)
        texts = {file: overview(sweeps, root)}
        pages: dict[Path, Callable[[str], str]] = {
            root / guide.FILE: lambda page: guide.with_tables(page, {sweep.name: sweep.rows for sweep in sweeps}),
            root / card_table.FILE: lambda page: card_table.with_card_table(page, card_table.read_cards(root)),
        }
        texts |= {page: made(page.read_text(encoding="utf-8")) for page, made in pages.items() if page.is_file()}
    except UserError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    for written, text in texts.items():
        with atomic_path(written) as temporary:
            temporary.write_text(text, encoding="utf-8")
    rows = [
        row
        for sweep in sweeps
        if sweep.name == "benchmarks"
        for row in sweep.rows
        if all(row[key] == value for key, value in SHOWN.items())
    ]
    if rows and usable(["matplotlib"]):
        draw_time(rows, "Set5", root / FIGURE)
    print(f"{file}: {sum(sweep.number for sweep in sweeps)} runs of {len(sweeps)} sweeps.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
