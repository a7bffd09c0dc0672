"""Choose the LR crops on which quantizers are calibrated, and write them as a list of positions.

python scripts/make_calibration_set.py --dataroot_gt datasets/DF2K/HR --scale 4 --out keydata/df2k_x4.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.data.calibration import make_calibration_set, save_calibration_set
from basicsr.utils.arguments import command_parser, integer_from
from basicsr.utils.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        calibration_set = make_calibration_set(
            options.dataroot_gt,
            options.dataroot_lq,
            scale=options.scale,
            num_images=options.num,
            crop_size=options.crop_size,
            seed=options.seed,
        )
        save_calibration_set(options.out, calibration_set)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {options.num} crops of {options.crop_size}x{options.crop_size} LR pixels, x{options.scale}.")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--dataroot_gt", required=True, help="folder of HR images")
    parser.add_argument("--dataroot_lq", help="folder of LR images; by default they are made by bicubic reduction")
    parser.add_argument("--scale", type=integer_from(1), required=True, help="scale factor")
    parser.add_argument("--num", type=integer_from(1), default=32, help="number of crops, by default 32")
    parser.add_argument(
        "--crop_size", type=integer_from(1), default=64, help="side of a crop in LR pixels, by default 64"
    )
    parser.add_argument("--seed", type=integer_from(0), default=0, help="chooses the crops, by default 0")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
