"""What an evaluation leaves: `results/<name>/metrics.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basicsr.evaluation.dataset_result import DatasetResult
from basicsr.quant.insertion.quantization_map import activation_ranges
from basicsr.quant.spec import FULL_PRECISION_BITS
from basicsr.utils import dist
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import write_json
from basicsr.utils.options import Options
from basicsr.utils.provenance import provenance
from basicsr.utils.rounding import rounded


def write_results(
    file: Path, options: Options, results: Sequence[DatasetResult], complexity: Mapping[str, float]
) -> None:
    """Write the means and the values of each image, with the protocol, as JSON.

    Args:
        file: the file to write.
        options: the options of the evaluation.
        results: one entry for each dataset.
        complexity: parameters, bytes and operations of the network.

    Raises:
        CheckpointError: the file cannot be written.
    """
    if not dist.is_main():
        return
    content: dict[str, Any] = {
        "network": options.network_g["type"],
        "method": options.method_name,
        "scale": options.scale,
        "w_bits": options.w_bits or FULL_PRECISION_BITS,
        "a_bits": options.a_bits or FULL_PRECISION_BITS,
        "coverage": options.quantization.coverage_name if options.quantization else None,
        "activation_ranges": (
            activation_ranges([options.quantization.activation_quantizer["type"]])
            if options.quantization and options.a_bits != FULL_PRECISION_BITS
            else None
        ),
        "weights": _weights(options),
        "protocol": options.val.model_dump(include={"crop_border", "test_y_channel", "pad", "self_ensemble"}),
        "complexity": dict(complexity),
        **measured(results),
        "provenance": provenance(),
    }
    with explained(CheckpointError, f"'{file}' could not be written"):
        write_json(file, content)


def measured(results: Sequence[DatasetResult]) -> dict[str, Any]:
    """Return the entries `metrics`, what each metric states of itself, and `datasets`, means and values of each image.

    A dataset has an entry `counted`, numbers of images, for metrics that have no value for some image.
    """
    return {
        "metrics": {name: traits.as_dict() for result in results[:1] for name, traits in result.traits.items()},
        "datasets": {
            result.name: {
                **rounded(result.means),
                **({"counted": result.counted} if result.counted else {}),
                "images": {name: rounded(values) for name, values in result.images.items()},
            }
            for result in results
        },
    }


def _weights(options: Options) -> str | None:
    """Return the file of the network that was evaluated."""
    path = options.path
    return path.pretrain_network_Q if options.quantization else path.pretrain_network_g or path.pretrain_network_FP
