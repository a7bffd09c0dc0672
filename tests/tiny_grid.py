"""A sweep small enough for tests: a SwinIR of 4 layers on one demo picture."""

from pathlib import Path
from typing import Any

import yaml

from basicsr.utils.options import apply_override
from tests import tiny

OPTIONS = tiny.ROOT / "options/train"


def nested(overrides: list[str]) -> dict[str, Any]:
    """Return `section:key=value` texts as a mapping of mappings."""
    result: dict[str, Any] = {}
    for text in overrides:
        result = apply_override(result, text)
    return result


def grid(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a grid of MinMax and 2DQuant at 4 bits; `changes` replace top-level keys, None removes them."""
    shared = [
        text for text in tiny.train_overrides(folder) if not text.startswith(("name=", "scale=", "train:total_iter="))
    ]
    content = {
        "name": "tiny",
        "architectures": ["SwinIR-tiny"],
        "scales": [4],
        "bits": [4],
        "overrides": nested(shared),
        "evaluation": {
            "datasets": {
                "test_1": {
                    "name": "demo",
                    "type": "PairedImageDataset",
                    "dataroot_gt": str(tiny.ROOT / "datasets/demo/val/HR"),
                    "num_images": 1,
                }
            }
        },
        "methods": [
            {"label": "MinMax", "options": f"{OPTIONS}/demo_MinMax.yml"},
            {
                "label": "2DQuant",
                "options": f"{OPTIONS}/demo_2DQuant.yml",
                "overrides": {"train": {"total_iter": 6}},
            },
        ],
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def write(folder: Path, **changes: Any) -> Path:
    """Write the grid as YAML into a folder; return the file."""
    file = folder / "grid.yml"
    file.write_text(yaml.safe_dump(grid(folder, **changes), sort_keys=False), encoding="utf-8")
    return file
