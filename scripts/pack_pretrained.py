"""Store a trained full-precision network in half precision under experiments/pretrained_models/, with its card.

    python scripts/pack_pretrained.py --weights FILE.pth --name SwinIR-light_x4 --note "how it was trained" \\
        --results results/test_SwinIR_x4/metrics.json

The card, <name>.json, holds the note, the sha256 of the file and, where an evaluation of the stored file is given, its figures.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save

sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.files import atomic_path, write_json
from basicsr.utils.weights import load_weights_file

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "pretrained_models"


def main() -> None:
    """Write <name>.safetensors (unless only results are added) and <name>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--weights", type=Path, help="full-precision weights to store; without it the card is updated")
    parser.add_argument("--note", help="data, recipe, iterations, time and hardware of the training")
    parser.add_argument("--results", type=Path, help="metrics.json of basicsr/test.py on the stored file")
    arguments = parser.parse_args()
    file, card_file = FOLDER / f"{arguments.name}.safetensors", FOLDER / f"{arguments.name}.json"
    card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.exists() else {}
    if arguments.weights:
        tensors = {k: v.to(torch.float16).contiguous() for k, v in load_weights_file(str(arguments.weights)).items()}
        tensors = {k: v for k, v in tensors.items() if not k.endswith(("attn_mask", "relative_position_index"))}
        with atomic_path(file) as temporary:
            temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
        card = {"file": file.name, "parameters": sum(v.numel() for v in tensors.values()), "dtype": "float16"}
    if arguments.note:
        card["training"] = arguments.note
    card["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    if arguments.results:
        datasets = json.loads(arguments.results.read_text(encoding="utf-8"))["datasets"]
        card["results"] = {name: {"psnr": d["psnr"], "ssim": d["ssim"]} for name, d in datasets.items()}
    write_json(card_file, card)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
