"""Test the full-precision networks of the repository, and compare with what their cards say.

    python scripts/check_pretrained.py                 # all, on the test sets that are on disk
    python scripts/check_pretrained.py EDSR_x4

From the root of the repository. Each is tested as basicsr/test.py does with the options that the card names. The exit
code is 1 if a figure is more than 0.01 dB off.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from basicsr import test
from basicsr.utils.arguments import command_parser
from basicsr.utils.cards import Card, read_card
from basicsr.utils.errors import CheckpointError, UserError
from basicsr.utils.weights import load_weights_file

FOLDER = ROOT / "experiments/pretrained_models"
TOLERANCE = 0.01  # dB


def main(argv: list[str] | None = None) -> int:
    """Check cards; return the exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cards without .json; all by default")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args(argv)
    names = arguments.names or sorted(file.stem for file in arguments.folder.glob("*.json"))
    if not names:
        print(f"'{arguments.folder}' holds no card (<name>.json). Correct --folder.", file=sys.stderr)
        return 2
    try:
        agree = [check(arguments.folder / f"{name}.json") for name in names]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if all(agree) else 1


def check(card_file: Path) -> bool:
    """Test the network of a card, print a line for each test set, and return whether the card agrees with all it speaks of."""
    card, weights = read_card(card_file), card_file.with_suffix(".safetensors")
    found = sum(tensor.numel() for tensor in load_weights_file(weights).values())
    if found != card.parameters:
        raise CheckpointError(
            f"The card '{card_file}' tells of {card.parameters} parameters, but '{weights}' has {found}."
        )
    with tempfile.TemporaryDirectory() as folder:
        results = tested(weights, ROOT / card.options, Path(folder), card.overrides)
    return all([_agrees(card, dataset, values["psnr"]) for dataset, values in results.items()])  # each prints its line


def tested(weights: Path, options: Path, folder: Path, overrides: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Test full-precision weights as basicsr/test.py does.

    Args:
        weights: the file.
        options: options file of the test, whose folders are those of the repository.
        folder: where the results of the run go.
        overrides: further options, as for --force_yml.

    Returns:
        PSNR (dB) and SSIM for each test set that is on disk.

    Raises:
        CheckpointError: the test failed; its log says why.
    """
    command = [
        "-opt",
        str(options),
        "--root",
        str(folder),
        "--force_yml",
        "name=card",
        *overrides,
        f"path:pretrain_network_g={weights}",
    ]
    if test.main(command) != 0:
        raise CheckpointError(f"The network '{weights}' could not be tested with '{options}'; see the log above.")
    datasets = json.loads((folder / "results/card/metrics.json").read_text(encoding="utf-8"))["datasets"]
    return {name: {"psnr": values["psnr"], "ssim": values["ssim"]} for name, values in datasets.items()}


def _agrees(card: Card, dataset: str, psnr: float) -> bool:
    """Print what was found and what the card says, and return whether it says nothing else."""
    told = card.results.get(dataset, {}).get("psnr")
    print(f"{card.file}, {dataset}: {psnr:.4f} dB, card {'silent' if told is None else f'{told:.4f} dB'}", flush=True)
    return told is None or abs(told - psnr) <= TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
