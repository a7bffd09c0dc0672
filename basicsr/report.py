"""Put what runs left side by side: one page with table, figures and pictures, the table as Markdown, crops as one picture.

    python basicsr/report.py results/demo_FP_x4 results/demo_MinMax_x4_bit4 -o results/comparison/report.html

Folders are those of results/, which basicsr/test.py leaves, or of experiments/, which basicsr/train.py leaves. Pictures need evaluations
with `val:save_img=true`. Different networks, scales and data sets get tables of their own.
"""

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file from a checkout: import the package beside it, not modules inside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.reporting.attempt import PACKAGES
from basicsr.utils.arguments import command_parser
from basicsr.utils.command_line import guarded
from basicsr.utils.extras import require


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a folder of results/ or experiments/")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("results/report/report.html"), metavar="FILE",
        help="the page; table.md and comparison.png are written beside it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", help="heading of the page; by default the name of its folder")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make one report and show its table; return the exit code."""
    arguments = parse_arguments(argv)

    def work() -> int:
        for package in PACKAGES:
            require(package)
        from basicsr.reporting.command import make_report  # imports them

        made = make_report(arguments.folders, arguments.output, arguments.title)
        encoding = sys.stdout.encoding or "utf-8"  # of a terminal that may lack the sign of infinity
        sys.stdout.write(made.describe().encode(encoding, "replace").decode(encoding) + "\n")
        return 0

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
