"""Pack a trained quantized network, and check on pictures that the packed file is that network."""

from pathlib import Path

import torch

from basicsr.data import build_evaluation_sets
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.models.evaluation import Evaluator, check_levels
from basicsr.models.networks import full_precision_network, quantized_network
from basicsr.utils.errors import OptionsError
from basicsr.utils.experiment import rounded
from basicsr.utils.files import write_json
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Options

BYTES_OF_FLOAT = 4


def export(options: Options, root: Path, device: torch.device, half: bool = False) -> Path:
    """Write `results/<name>/<name>.safetensors` and, beside it, `export.json` with sizes and what the check found.

    Args:
        options: those of a test of the quantized network.
        root: folder that holds `results/`.
        device: where the networks run for the check.
        half: store what is not quantized in half precision.

    Returns:
        The packed file.

    Raises:
        OptionsError: the options describe no quantized network.
        CheckpointError: a file cannot be read or written.
        QuantizationError: the network cannot be frozen.
    """
    if options.quantization is None:
        raise OptionsError(
            "Section 'quantization' is required: only quantized networks are packed. Give the options file of their test."
        )
    full_precision = full_precision_network(options)
    network, quantization_map = quantized_network(full_precision, options)
    file = root / "results" / options.name / f"{options.name}.safetensors"
    size = save_packed(network, options.network_g, quantization_map, file, method=options.method_name, half=half)
    plain_size = BYTES_OF_FLOAT * sum(p.numel() for p in full_precision.parameters())
    get_logger().info(
        "Wrote '%s': %d bytes, the full-precision weights %d, ratio %.2f.", file, size, plain_size, plain_size / size
    )
    packed, _ = load_packed(file)
    network, packed = network.to(device), packed.to(device)
    # with the trained network in the place of the full-precision one, fidelity is the agreement with it
    evaluator = Evaluator(options.val, options.scale, network)
    datasets = build_evaluation_sets(options.datasets_of("test"), options.scale)
    if datasets:
        check_levels(packed, datasets[0][0]["lq"])
    report = {}
    for dataset in datasets:
        before, after = evaluator.evaluate(network, dataset).means, evaluator.evaluate(packed, dataset).means
        report[dataset.name] = {"trained": rounded(before), "packed": rounded(after)}
        get_logger().info(
            "%s: PSNR %.4f dB, packed %.4f dB; outputs agree to %.1f dB.",
            dataset.name, before["psnr"], after["psnr"], after["fidelity"],
        )  # fmt: skip
    content = {"bytes": size, "bytes_full_precision": plain_size, "half": half, "datasets": report}
    write_json(file.with_name("export.json"), content)
    return file
