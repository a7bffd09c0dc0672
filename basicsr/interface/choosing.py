"""Choose the bits of each quantizer of any network under an average."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from basicsr.interface.crops import Crops, as_crops
from basicsr.interface.quantizing import quantize
from basicsr.training.bit_choice import as_overrides, check_average, expected_errors, quantizers_with_bits
from basicsr.training.bit_choice import choose_bits as bits_of_quantizers
from basicsr.utils.options import merge

_FEWEST_STEPS = {"weight_fit": 0, "by_gradient": 0, "by_output": []}


def choose_bits(
    network: nn.Module,
    crops: Crops,
    average_bits: float,
    method: str = "DOBI_fitted",
    *,
    options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> list[dict[str, Any]]:
    """Return bits for each quantizer, so that the expected error of the output is smallest and their average is at most a given one.

        bits = basicsr.choose_bits(network, crops, 4)
        quantized = basicsr.quantize(network, crops, 4, "DOBI_fitted", options={"quantization": {"overrides": bits}})

    See `training.bit_choice` for how the error is estimated and what the average counts. Layers to which the coverage gives bits of their
    own, such as the first and the last one of `full`, keep them.

    Args:
        network: as for `quantize`.
        crops: as for `quantize`; 16 are plenty.
        average_bits: from 2 to 8, such as 4 or 3.5.
        method: name of the recipe whose quantizers the network is to have.
        options: changes of the recipe, as for `quantize`.
        **arguments: further ones of `quantize`, such as `coverage`; not `bits`.

    Returns:
        What the option `quantization:overrides` takes.

    Raises:
        OptionsError: the average is out of reach, scipy is missing, or as from `quantize`.
        DataError, QuantizationError: as from `quantize`.
    """
    bits = check_average(average_bits)
    changes = merge(dict(options or {}), {"calibration": _FEWEST_STEPS})
    quantized = quantize(network, crops, bits, method, options=changes, **arguments)
    lr = as_crops(crops, quantized.size_multiple)
    names = quantizers_with_bits(quantized.network, bits, bits)
    errors = expected_errors(quantized.network, names, lr)
    return as_overrides(errors, bits_of_quantizers(errors, average_bits))
