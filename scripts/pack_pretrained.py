"""Store a trained full-precision network in half precision under experiments/pretrained_models/, with its card.

    python scripts/pack_pretrained.py --name EDSR_x2 --weights experiments/train_EDSR_x2/models/net_g_latest.pth \\
        --options options/test/test_FP.yml --force_yml network=edsr_baseline scale=2 --training "data, recipe, iterations, time and hardware"

From the root of the repository. The stored file is tested on the sets of the options that are on disk, and the card
<name>.json beside it tells what came out.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.utils.arguments import command_parser
from basicsr.utils.cards import Card
from basicsr.utils.errors import UserError
from basicsr.utils.files import atomic_path, sha256_of, write_json
from basicsr.utils.options import load_options
from basicsr.utils.safetensors_bytes import to_safetensors
from basicsr.utils.stated_network import ENTRY, plain
from basicsr.utils.weights import load_weights_file
from check_pretrained import FOLDER, ROOT, tested


def main(argv: list[str] | None = None) -> int:
    """Write <name>.safetensors and <name>.json; return the exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--weights", required=True, type=Path, help="full-precision weights to store")
    parser.add_argument("--options", required=True, help="options file of their test, from the root of the repository")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of these options")
    parser.add_argument("--training", required=True, help="data, recipe, iterations, time and hardware of the training")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args(argv)
    try:
        card = pack(arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(card.model_dump_json(indent=2))
    return 0


def pack(arguments: argparse.Namespace) -> Card:
    """Store the network and its card, see the arguments of `main`.

    Raises:
        UserError: weights or options cannot be used.
    """
    tensors = {k: v.to(torch.float16).contiguous() for k, v in load_weights_file(arguments.weights).items()}
    tensors = {k: v for k, v in tensors.items() if not k.endswith(("attn_mask", "relative_position_index"))}
    network = plain(load_options(ROOT / arguments.options, arguments.force_yml).network_g)
    file = arguments.folder / f"{arguments.name}.safetensors"
    file.with_suffix(".json").unlink(missing_ok=True)  # of other weights
    with atomic_path(file) as temporary:
        temporary.write_bytes(to_safetensors(tensors, {"format": "pt", ENTRY: json.dumps(network)}))
    with tempfile.TemporaryDirectory() as folder:
        results = tested(file, ROOT / arguments.options, Path(folder), arguments.force_yml)
    card = Card(
        file=file.name,
        parameters=sum(v.numel() for v in tensors.values()),
        dtype="float16",
        options=arguments.options,
        overrides=arguments.force_yml,
        network=network,
        training=arguments.training,
        sha256=sha256_of(file),
        results=results,
    )
    write_json(file.with_suffix(".json"), card.model_dump())
    return card


if __name__ == "__main__":
    sys.exit(main())
