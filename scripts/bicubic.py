"""Measure bicubic enlargement, the baseline of the field, on the test sets of an options file.

    python scripts/bicubic.py -opt options/test/test_SwinIR_x4.yml --force_yml name=bicubic_x4

Leaves results/<name>/metrics.json as basicsr/test.py does. The enlargement is Matlab's, the LR images are those of the test sets.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from basicsr.data import build_evaluation_sets
from basicsr.evaluation.evaluator import DatasetResult
from basicsr.metrics.psnr_ssim_metric import calculate_psnr, calculate_ssim
from basicsr.utils.command_line import run
from basicsr.utils.errors import CheckpointError, DataError, explained
from basicsr.utils.experiment import provenance, rounded
from basicsr.utils.files import write_json
from basicsr.utils.image import tensor_to_image
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options
from basicsr.utils.resize import upscale_image


def main(argv: list[str] | None = None) -> int:
    """Run one evaluation; return the exit code."""
    return run(argv, __doc__, lambda options, root, _device, _arguments: measure(options, root))


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
    border = options.scale if options.val.crop_border is None else options.val.crop_border
    results = []
    for dataset in datasets:
        images = {
            item["name"]: _measure_image(item["lq"], item["gt"], options.scale, border, options.val.test_y_channel)
            for item in (dataset[index] for index in range(len(dataset)))
        }
        results.append(DatasetResult(dataset.name, dict(sorted(images.items()))))
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
        "datasets": {
            result.name: {
                **rounded(result.means),
                "images": {name: rounded(values) for name, values in result.images.items()},
            }
            for result in results
        },
        "provenance": provenance(),
    }
    file = root / "results" / options.name / "metrics.json"
    with explained(CheckpointError, f"'{file}' could not be written"):
        write_json(file, content)


def _measure_image(lq: torch.Tensor, gt: torch.Tensor, scale: int, border: int, on_y: bool) -> dict[str, float]:
    image, truth = upscale_image(tensor_to_image(lq), scale), tensor_to_image(gt)
    return {
        "psnr": calculate_psnr(image, truth, crop_border=border, test_y_channel=on_y),
        "ssim": calculate_ssim(image, truth, crop_border=border, test_y_channel=on_y),
    }


if __name__ == "__main__":
    sys.exit(main())
