"""A quantized network as runtimes compute it: what is exported as an ONNX graph."""

from torch import nn

from basicsr.deploy.twins import with_twins


def eight_bit_network(network: nn.Module, *, integer_linear: bool = True) -> nn.Module:
    """Return a copy of a calibrated quantized network whose quantized layers are in the form that they state for runtimes.

    Args:
        network: the network; a full-precision one is copied as it is.
        integer_linear: compute linear layers in integers, as convolutions are; otherwise in floating point with the same
            values, which is faster where a processor has no instructions for small products of integers.

    Raises:
        QuantizationError: an activation quantizer has no static uniform grid, a quantizer is not calibrated, or a layer has no
            form for runtimes; names the layer.
    """
    return with_twins(
        network, lambda layer: layer.behind_input_change(layer.runtime_form(integer_linear=integer_linear))
    )
