"""Measure bicubic enlargement, the baseline of the field, on the test sets of an options file.

    python scripts/bicubic.py -opt options/test/test_FP.yml --force_yml name=bicubic_x4

Leaves results/<name>/metrics.json as basicsr/test.py does. The enlargement is Matlab's, the LR images are those of the test sets.
"""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.data import build_evaluation_sets
from basicsr.evaluation.evaluator import Evaluator
from basicsr.evaluation.results import measured
from basicsr.utils.command_line import run
from basicsr.utils.errors import CheckpointError, DataError, explained
from basicsr.utils.files import write_json
from basicsr.utils.image import image_to_tensor, tensor_to_image
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options
from basicsr.utils.provenance import provenance
from basicsr.utils.resize import upscale_image


class Bicubic(nn.Module):
    """Enlarges images as Matlab does, in whole grey levels."""

    size_multiple = 1

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge (n, 3, h, w) in 0..1."""
        images = [upscale_image(tensor_to_image(image), self.scale) for image in x]
        return torch.stack([image_to_tensor(image) for image in images])


def main(argv: list[str] | None = None) -> int:
    """Run one evaluation; return the exit code."""
    return run(argv, __doc__, lambda options, root, _device, _arguments: measure(options, root), reads_weights=False)


def measure(options: Options, root: Path) -> None:
    """Measure bicubic enlargement; leaves `results/<name>/metrics.json` under `root`.

    Raises:
        DataError: none of the test sets is on disk, or an image cannot be used.
        CheckpointError: the file cannot be written.
    """
    datasets = build_evaluation_sets(options.datasets_of("test"), options.scale)
    if not datasets:
        raise DataError(
            "None of the test sets is on disk. Lay one out with scripts/prepare_data.py, or name another folder."
        )
    whole = options.val.model_copy(update={"tile": None, "self_ensemble": False})
    evaluator = Evaluator(whole, options.scale, None)
    results = []
    for dataset in datasets:
        results.append(evaluator.evaluate(Bicubic(options.scale), dataset))
        get_logger().info("%s", results[-1].describe())
    content = {
        "network": None,
        "method": "Bicubic",
        "scale": options.scale,
        "w_bits": 32,
        "a_bits": 32,
        "coverage": None,
        "weights": None,
        "protocol": options.val.model_dump(include={"crop_border", "test_y_channel"}),
        **measured(results),
        "provenance": provenance(),
    }
    file = root / "results" / options.name / "metrics.json"
    with explained(CheckpointError, f"'{file}' could not be written"):
        write_json(file, content)


if __name__ == "__main__":
    sys.exit(main())
