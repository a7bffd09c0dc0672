"""From options to networks with their weights: to train, to quantize, to test."""

from torch import nn

from basicsr.archs import build_network
from basicsr.networks.quantized import load_quantized, quantized_copy, with_bits_of_file
from basicsr.quant.insertion.depth import blocks_beyond, leave_out
from basicsr.quant.insertion.quantization_map import QuantizationMap
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.network_size import USUAL
from basicsr.utils.options import Options
from basicsr.utils.weights import load_fitting_weights, load_network_weights, load_weights_file


def full_precision_network(options: Options) -> nn.Module:
    """Build the network that a run quantizes or compares with, with its full-precision weights.

    Raises:
        OptionsError: no weights are named, or where only networks to train look for them.
        CheckpointError: they cannot be read or belong to another network.
    """
    if options.path.pretrain_network_g is not None:
        raise OptionsError(
            "Option 'path:pretrain_network_g' is for training and testing in full precision. A run with the section "
            "'quantization' takes the weights of its full-precision network from 'path:pretrain_network_FP'."
        )
    if options.path.pretrain_network_FP is None:
        raise OptionsError("Option 'path:pretrain_network_FP' is required: the weights of the full-precision network.")
    return network_from(options, options.path.pretrain_network_FP, options.path.param_key_FP)


def trainable_network(options: Options) -> nn.Module:
    """Build the network of a training in full precision, with new weights or those of `path:pretrain_network_g`.

    Raises:
        OptionsError: the options ask for quantization.
        CheckpointError: the weights cannot be read or belong to another network.
    """
    if options.quantization is not None:
        raise OptionsError(
            f"Section 'quantization' has no meaning with 'model_type: {options.model_type}', which trains in full precision. "
            "Remove it, or name a model that trains quantized networks."
        )
    path = options.path
    if path.pretrain_network_g is None:
        return build_network(options.network_g)
    get_logger().info("Training starts from the weights '%s'.", path.pretrain_network_g)
    return network_from(options, path.pretrain_network_g, path.param_key_g, path.strict_load_g)


def network_from(options: Options, file: str, param_key: str | None, strict: bool = True) -> nn.Module:
    """Build the network of the options with the weights of a file; not `strict`, with those that fit."""
    weights = load_weights_file(file, param_key)
    network = build_network(options.network_g, bound=USUAL.around_tensors(weights.values()) if strict else None)
    load = load_network_weights if strict else load_fitting_weights
    load(network, weights, file)
    return network


def network_to_test(options: Options) -> nn.Module:
    """Build the full-precision network of a test: the one of a training (`path:pretrain_network_g`) where it is named.

    Raises:
        OptionsError: no weights are named.
        CheckpointError: they cannot be read or belong to another network.
    """
    path = options.path
    if options.quantization is None and path.pretrain_network_g is not None:
        return network_from(options, path.pretrain_network_g, path.param_key_g)
    return full_precision_network(options)


def quantized_network(full_precision: nn.Module, options: Options) -> tuple[nn.Module, QuantizationMap]:
    """Return the quantized network of `path:pretrain_network_Q`, and the record of its quantizers.

    Raises:
        OptionsError: no file is named.
        CheckpointError: it cannot be read, or belongs to another network.
        QuantizationError: its bits are not those of the options.
    """
    file = options.path.pretrain_network_Q
    if file is None:
        raise OptionsError("Option 'path:pretrain_network_Q' is required: the quantized network to evaluate.")
    options = with_bits_of_file(options, file)
    network, quantization_map = quantized_copy(full_precision, options, share_weights=False)
    load_quantized(network, file)
    if options.quantization is not None and options.quantization.depth < 1:
        leave_out(network, blocks_beyond(network, options.quantization.depth, "quantization:depth"))
    return network, quantization_map
