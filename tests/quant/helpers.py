"""What several tests of quantizers and quantized modules need."""

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds, OutlierBounds, StaticPoints
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.observe.capture import observe_quantizer_inputs


def set_min_max_bounds(network: nn.Module, *inputs: Tensor) -> None:
    """Give every quantizer the range of its input in one forward pass, per channel where the quantizer is; or points that part its values equally."""

    def callback(quantizer):
        def take(x: Tensor) -> None:
            axis = quantizer.spec.channel_axis
            rows = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).flatten(1)
            lower, upper = rows.amin(1), rows.amax(1) + 1e-6
            bounds = lower.view(quantizer.bounds_shape), upper.view(quantizer.bounds_shape)
            results = {
                Bounds: lambda: Bounds(*bounds),
                OutlierBounds: lambda: OutlierBounds(*bounds, breakpoint=upper[0] / 3),
                StaticPoints: lambda: StaticPoints(
                    x.flatten().quantile(torch.linspace(0, 1, quantizer.spec.num_levels))
                ),
            }
            quantizer.load_calibration(results[quantizer.takes]())

        return take

    callbacks = {name: callback(quantizer) for name, quantizer in named_quantizers(network)}
    with torch.no_grad(), observe_quantizer_inputs(network, callbacks):
        network(*inputs)
