"""Show crops of test images as the networks of a sweep enlarge them, with the PSNR of the whole image under each.

    python scripts/make_pictures.py
    python scripts/make_pictures.py -grid options/sweep/demo_ptq.yml --crops demo/astronaut --bits 4 2 --out results/pictures

One picture for each architecture and scale, <out>/<arch>_x<scale>.png, from the runs in experiments/ that sweep.py has trained.
Where only their records are left, `sweep.py --train-only` trains them again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from basicsr.reporting.crops import SIZES
from basicsr.sweep.grid import Grid, load_grid
from basicsr.sweep.pictures import Place, picture
from basicsr.sweep.plan import Run, plan
from basicsr.sweep.records import Places, is_trained
from basicsr.utils.arguments import command_parser
from basicsr.utils.devices import select_device
from basicsr.utils.errors import OptionsError, UserError
from basicsr.utils.image import write_image

UNUSABLE = 2
GRID = Path("options/sweep/benchmarks.yml")
CROPS = ("Set5/butterfly:80,150", "Set14/comic:90,100")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    parser.add_argument("-grid", default=GRID, type=Path, metavar="FILE", help=f"the grid, by default {GRID}")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these, such as EDSR-baseline_x4")
    parser.add_argument("--methods", nargs="+", metavar="LABEL", help="only these methods of the grid")
    parser.add_argument(
        "--bits", nargs="+", default=["4", "2"], metavar="BITS", help="which bits of the grid, by default 4 2"
    )
    parser.add_argument(
        "--crops", nargs="+", default=CROPS, metavar="CROP",
        help=f"<dataset>/<image>:<top>,<left>, without a corner where outputs differ most; by default {' '.join(CROPS)}",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=int, default=64, choices=SIZES, help="height and width of a crop in HR pixels, by default 64"
    )
    parser.add_argument(
        "--out", default=Path("docs/results"), type=Path, metavar="FOLDER", help="by default docs/results"
    )
    parser.add_argument("--root", default=".", type=Path, metavar="FOLDER", help="folder that holds experiments/")
    return parser.parse_args(argv)


def networks_of(grid: Grid, runs: Sequence[Run], arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Return the runs to show, trained or not, by the name of their network.

    Raises:
        OptionsError: the arguments choose none.
    """
    widths = grid.bit_widths()
    bits = [widths[text] for text in arguments.bits if text in widths]
    networks: dict[str, list[Run]] = {}
    for run in runs:
        name = f"{run.arch}_x{run.scale}"
        if run.kind != "quantized" or (run.options.w_bits, run.options.a_bits) not in bits:
            continue
        if name in (arguments.networks or [name]) and run.method in (arguments.methods or [run.method]):
            networks.setdefault(name, []).append(run)
    if not networks:
        raise OptionsError(
            f"'{arguments.grid}' has no runs with these networks, methods and bits ({', '.join(arguments.bits)}). Choose from "
            f"{', '.join(f'{arch}_x{scale}' for arch in grid.architectures for scale in grid.scales)}; "
            f"{', '.join(method.label for method in grid.methods)}; {', '.join(grid.bits)}."
        )
    return networks


def main(argv: Sequence[str] | None = None) -> int:
    """Draw what the arguments ask for; return the exit status."""
    arguments = parse_arguments(argv)
    root = arguments.root
    try:
        grid = load_grid(arguments.grid)
        crops = [Place.parse(text, arguments.size) for text in arguments.crops]
        places = Places(root, root / grid.output_folder, root / "results" / "sweeps" / grid.name / "logs")
        device = select_device()
        for name, runs in networks_of(grid, plan(grid, root), arguments).items():
            trained = [run for run in runs if is_trained(run, places)]
            if len(trained) < len(runs):
                print(
                    f"{name}: {len(runs) - len(trained)} of {len(runs)} runs are not in experiments/ and left out; "
                    "sweep.py --train-only makes them."
                )
            if trained:
                write_image(arguments.out / f"{name}.png", picture(trained, crops, device, print), smallest=True)
                print(f"Written: {arguments.out / f'{name}.png'}")
    except UserError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
