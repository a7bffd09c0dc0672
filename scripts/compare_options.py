"""Show that options files of earlier versions and what replaces them mean the same.

    python scripts/compare_options.py               # a table: old file, new command, equal or what differs
    python scripts/compare_options.py --only 'train/*RDN*'

From the root of the repository. `options/replaced.yml` names what replaces each file; a file that is not in it lies where it lay.
`tests/snapshots/replaced_options.json` holds what the old files resolved to, every section once. Both sides are completed with the
defaults of today. Seven differences are intended:

- `gt_size` is `lq_size` now;
- `network` and `recipe` are new and say only where options came from;
- the label `method` tells the recipes of 2DQuant, DFSQ and BRECQ apart;
- files of tests hold what a recipe does in training, too, which a test does not read;
- the training of a full-precision network from scratch no longer names weights of another network, which it does not read;
- 2DQuant on DF2K names calibration sets instead of drawing crops;
- PAMS, DDTB and QuantSR have the features, gates, skip connections and depths of their authors' code.

The exit code is 1 if anything else differs.
"""

import json
import shlex
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from basicsr.utils.arguments import command_parser
from basicsr.utils.options import Options, by_path, load_options
from basicsr.utils.recipe import options_of
from basicsr.utils.yaml_loader import read_yaml

SNAPSHOT = ROOT / "tests/snapshots/replaced_options.json"
ORIGIN = {"network", "recipe", "method"}
NOT_READ = {
    "train/demo_train_EDSR_x4.yml": ("path:pretrain_network_FP",),
    "test/*": ("calibration:*", "logger:*", "model_type", "val:val_freq", "*:threshold_window", "*:exact_zeros"),
}
AS_THEIR_AUTHORS = {
    "*_PAMS*": ("train:feature_layers", "quantization:coverage"),
    "*_DDTB*": ("train:feature_layers", "quantization:coverage", "quantization:activation_quantizer:pull_steps"),
    "*_QuantSR*": ("quantization:coverage", "train:depths"),
}
NAMES_SETS = "train/train_*2DQuant_x*.yml"


def main(argv: list[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--only", default="*", metavar="GLOB", help="old files, such as 'train/*RDN*'")
    glob = parser.parse_args(argv).only
    before, commands = old_options(), new_commands()
    chosen = [file for file in before if fnmatchcase(file, glob)]
    different = 0
    print("| old file | new command | options |\n|---|---|---|")
    for file in chosen:
        found = differences(file, before[file], commands.get(file, file))
        different += bool(found)
        print(f"| {file} | {commands.get(file, file)} | {'; '.join(found) or 'equal'} |")
    print(f"\n{len(chosen) - different} of {len(chosen)} are equal.")
    return 1 if different or not chosen else 0


def old_options() -> dict[str, dict[str, Any]]:
    """Return what each old file resolved to."""
    snapshot = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return {
        file: {key: snapshot["sections"][key][number] for key, number in numbers.items()}
        for file, numbers in snapshot["files"].items()
    }


def new_commands() -> dict[str, str]:
    """Return what replaces each old file: a file under options/, and overrides."""
    return read_yaml(ROOT / "options/replaced.yml")


def differences(file: str, before: dict[str, Any], command: str) -> list[str]:
    """Return `section:key: old -> new` for every option that differs.

    Args:
        file: the old file, for differences that are intended.
        before: what it resolved to.
        command: what replaces it.
    """
    name, *overrides = shlex.split(command)
    old, new = _flat(options_of(before)), _flat(load_options(ROOT / "options" / name, overrides))
    names_sets = {"calibration:data"} if fnmatchcase(file, NAMES_SETS) and old["calibration:data"] is None else set()
    not_read = [
        glob for files, globs in {**NOT_READ, **AS_THEIR_AUTHORS}.items() if fnmatchcase(file, files) for glob in globs
    ]
    keys = sorted(key for key in old.keys() | new.keys() if not any(fnmatchcase(key, glob) for glob in not_read))
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in keys
        if old.get(key) != new.get(key) and key not in names_sets
    ]


def _flat(options: Options) -> dict[str, Any]:
    return by_path(json.loads(json.dumps(options.model_dump(exclude=ORIGIN))))


if __name__ == "__main__":
    sys.exit(main())
