"""A quantized network in exact integers: the oracle for every runtime, written for clarity; it is not fast."""

from torch import nn

from basicsr.deploy.twins import with_twins


def integer_network(network: nn.Module) -> nn.Module:
    """Return a copy of a calibrated quantized network whose quantized layers multiply integer codes and accumulate in int32.

    Args:
        network: all its quantizers have a static uniform grid; those of activations are per tensor.

    Raises:
        QuantizationError: a quantizer has no such grid, or a layer no integer twin; names the layer.
    """
    return with_twins(network, lambda layer: layer.behind_input_change(layer.integer_twin()))
