"""What a file of a quantized network says of its quantizers, and whether the network that takes its tensors has the same.

Quantizers of several kinds keep their state under the same names: exchanged, they compute something else without a word.
"""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.quantizers.base import Quantizer
from basicsr.utils.errors import CheckpointError
from basicsr.utils.stated_network import plain

_SYMMETRIC = "symmetric"


def stated_quantizers(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Return type, options and symmetry of each quantizer of a network, by its name, as values of JSON.

    Options that change gradients alone are left out.
    """
    return {name: _stated(quantizer) for name, quantizer in named_quantizers(network) if quantizer.built_from}


def check_quantizers(network: nn.Module, stated: Mapping[str, Any] | None, path: object) -> None:
    """Compare the quantizers of a network with those that a file states.

    Args:
        network: with quantizers, before it takes the tensors of the file.
        stated: what `stated_quantizers` returned when the file was written; None where the file does not say.
        path: the file, for messages.

    Raises:
        CheckpointError: a quantizer is of another type, or has another option that changes what it computes.
    """
    weights = {name for name, _ in named_quantizers(network, "weight")}
    for name, own in stated_quantizers(network).items():
        of_file = (stated or {}).get(name)
        if not isinstance(of_file, Mapping):
            continue  # of another coverage, which the names of the tensors tell
        keys = ["type"] if of_file.get("type") != own["type"] else [key for key in own if key in of_file]
        differing = [key for key in keys if of_file.get(key) != own[key]]
        if differing:
            role = "weight" if name in weights else "activation"
            found, wanted = (", ".join(f"{key} {_text(one.get(key))}" for key in differing) for one in (of_file, own))
            remedy = " ".join(f"{_option(role, key)}={_text(of_file.get(key))}" for key in differing)
            raise CheckpointError(
                f"The quantized network '{path}' has the quantizer '{name}' with {found}, not {wanted}: its numbers would mean "
                f"something else. Give {remedy}, or the options file that it was made with."
            )


def _stated(quantizer: Quantizer[Any]) -> dict[str, Any]:
    options = {key: value for key, value in quantizer.built_from.items() if key not in quantizer.only_gradients}
    return plain({**options, _SYMMETRIC: quantizer.spec.symmetric})


def _option(role: str, key: str) -> str:
    return f"quantization:{role}_{key}" if key == _SYMMETRIC else f"quantization:{role}_quantizer:{key}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
