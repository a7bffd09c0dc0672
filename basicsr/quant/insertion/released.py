"""Read the state dicts of networks released with 2DQuant, whose modules are named differently."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from basicsr.quant.spec import QuantizationError

_MATMUL_INPUTS = {
    "mymodule_q": "qk.a_quantizer",
    "mymodule_k": "qk.b_quantizer",
    "mymodule_a": "av.a_quantizer",  # the softmax map
    "mymodule_v": "av.b_quantizer",
}
_MATMUL_KEY = re.compile(r"\.(mymodule_[qkav])\.")
_PROJECTION_KEY = re.compile(r"(?P<layer>.*\.attn\.qkv)\.[qkv]\.(?P<parameter>weight|bias)")


def is_released_2dquant(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of a network released with 2DQuant."""
    return any(key.endswith(".n_bit") for key in state_dict)


def convert_released_2dquant(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under the keys of this package; tensors that need no change are shared, not copied.

    q, k and v projections are stacked to the official `attn.qkv`, the inputs of the attention products become quantizers of
    the products, bounds of the shape (1,) become (), and every quantizer counts as calibrated.

    Args:
        state_dict: as released, with the keys `...attn.qkv.q.weight` and `...attn.mymodule_q.lower_bound`.

    Returns:
        Keys for a network with the coverage `2dquant`. The entries `bits` tell how many bits it needs.

    Raises:
        QuantizationError: a projection is missing, or a number of bits is not a whole number.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        projection = _PROJECTION_KEY.fullmatch(key)
        if projection:
            layer, parameter = projection["layer"], projection["parameter"]
            if f"{layer}.{parameter}" not in converted:
                converted[f"{layer}.{parameter}"] = _stack_projections(state_dict, layer, parameter)
            continue
        new_key = _MATMUL_KEY.sub(lambda match: f".{_MATMUL_INPUTS[match[1]]}.", key)
        quantizer, _, entry = new_key.rpartition(".")
        if entry == "n_bit":
            bits = float(value)
            if not bits.is_integer():
                raise QuantizationError(f"The checkpoint gives '{quantizer}' {bits} bits, which is not a whole number.")
            converted[f"{quantizer}.bits"] = torch.tensor(int(bits))
            converted[f"{quantizer}.calibrated"] = torch.tensor(True)
        else:
            converted[new_key] = value.reshape(()) if entry in ("lower_bound", "upper_bound") else value
    return converted


def _stack_projections(state_dict: Mapping[str, Tensor], layer: str, parameter: str) -> Tensor:
    missing = [f"{layer}.{part}.{parameter}" for part in "qkv" if f"{layer}.{part}.{parameter}" not in state_dict]
    if missing:
        raise QuantizationError(f"The checkpoint lacks {', '.join(missing)}; it is damaged or of an unknown kind.")
    return torch.cat([state_dict[f"{layer}.{part}.{parameter}"] for part in "qkv"])  # 3C, C or 3C
