"""Write an options file of BasicSR or 2DQuant in the form of this project.

    python scripts/convert_options.py old.yml > new.yml
    python scripts/convert_options.py old.yml --force_yml bit=3 > new.yml

The new file means the same as the old one, which train.py and test.py read as well. What was changed is told on the terminal.
The exit code is 2 where an option has no counterpart and would change results.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml

from basicsr.utils.arguments import command_parser
from basicsr.utils.command_line import guarded
from basicsr.utils.options import Options, load_options, translated_options


def main(argv: list[str] | None = None) -> int:
    """Write the file to standard output; return the exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("opt", metavar="FILE", help="options file of BasicSR or 2DQuant")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="changes, in old names or in new ones"
    )
    arguments = parser.parse_args(argv)
    return guarded(lambda: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    options = translated_options(arguments.opt, arguments.force_yml)
    load_options(arguments.opt, arguments.force_yml, tell=False)  # what does not fit is told before it is written
    sys.stdout.write(f"# Made from '{Path(arguments.opt).name}' by scripts/convert_options.py.\n")
    known = {key: options[key] for key in Options.model_fields if key in options}  # in the order of the reference
    yaml.safe_dump(
        {**known, **options}, sys.stdout, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
