"""From a full-precision network and options to a quantized one, and from a checkpoint into it."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from basicsr.archs.base import joined_inputs_of
from basicsr.networks.stated_quantizers import check_quantizers
from basicsr.quant.insertion.coverage import CoverageRule
from basicsr.quant.insertion.insert import insert_quantizers
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.quant.insertion.released import convert_released_2dquant, is_released_2dquant
from basicsr.quant.insertion.sharing import check_shared, share_inputs
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.options import Options, OverrideOptions, RuleOptions
from basicsr.utils.weights import load_network_weights, load_weights_file

_BITS = ".bits"
"""Ending of the entries of a state dict that hold the bits of a quantizer."""


def quantized_copy(network: nn.Module, options: Options, *, share_weights: bool) -> tuple[nn.Module, QuantizationMap]:
    """Return a copy of a network with quantizers inserted, and the quantization map.

    Args:
        network: a full-precision network.
        options: coverage, bits and quantizers.
        share_weights: use the same parameters, for a copy whose weights never change.

    Raises:
        OptionsError: the section `quantization` is missing.
        QuantizationError: the coverage does not fit the network.
    """
    chosen = options.quantization
    if chosen is None:
        raise OptionsError(f"Section 'quantization' is required with 'model_type: {options.model_type}'.")
    shared = {id(parameter): parameter for parameter in network.parameters()} if share_weights else {}
    quantized = copy.deepcopy(network, memo=dict(shared))
    arguments = chosen.model_dump(exclude={"coverage", "w_bits", "a_bits", "depth", "shared_inputs", "average_bits"})
    coverage = chosen.coverage if isinstance(chosen.coverage, str) else [_rule(rule) for rule in chosen.coverage]
    quantization_map = insert_quantizers(quantized, coverage, *options.required_bits(), **arguments)
    if chosen.shared_inputs:
        share_inputs(quantized, joined_inputs_of(network))
    return quantized.eval(), quantization_map


def with_overrides(options: Options, overrides: Sequence[Mapping[str, Any]]) -> Options:
    """Return options whose quantizers have bits by these overrides, and no average that is still to be met."""
    assert options.quantization is not None
    given = [OverrideOptions(**one) for one in overrides]
    section = options.quantization.model_copy(update={"overrides": given, "average_bits": None})
    return options.model_copy(update={"quantization": section})


def with_bits_of_file(options: Options, path: str | Path) -> Options:
    """Return options whose quantizers have the bits that a checkpoint states, where the options ask for an average of bits.

    Raises:
        CheckpointError: the file cannot be read, or states no bits.
    """
    if options.average_bits is None:
        return options
    bits = {
        key.removesuffix(_BITS): int(value) for key, value in load_weights_file(path).items() if key.endswith(_BITS)
    }
    if not bits:
        raise CheckpointError(
            f"The quantized network '{path}' does not say how many bits its quantizers have. Leave out "
            "'quantization:average_bits', or name a network that this project trained with it."
        )
    return with_overrides(options, [{"match": name, "w_bits": b, "a_bits": b} for name, b in bits.items()])


def _rule(rule: RuleOptions) -> CoverageRule:
    return CoverageRule(**{**rule.model_dump(), "split": tuple(rule.split)})


def load_quantized(network: nn.Module, path: str | Path) -> None:
    """Load a checkpoint of this framework, or one released with 2DQuant, into a network with quantizers.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another network or coverage, or to quantizers of other kinds.
        QuantizationError: its bits are not those of the quantizers, or its grids differ where the network has one.
    """
    weights = load_weights_file(path)
    check_quantizers(network, weights.quantizers, path)
    state_dict: Mapping[str, Tensor] = weights
    if is_released_2dquant(state_dict):
        state_dict = convert_released_2dquant(state_dict)
    check_shared(network, state_dict)
    load_network_weights(network, state_dict, path)
