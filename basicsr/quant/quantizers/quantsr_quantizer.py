"""LSQ with a learned shift of each channel and the gradient of a soft staircase."""

import torch
from torch import Tensor, nn

from basicsr.quant.ops.step_functional import fake_quantize_by_step
from basicsr.quant.quantizers.base import Channels, StatedRange
from basicsr.quant.quantizers.lsq_quantizer import LSQQuantizer
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("QuantSR")
class QuantSRQuantizer(LSQQuantizer):
    """The quantizer of QuantSR (NeurIPS 2023): LSQ on x + shift, with the slope of a soft staircase in the backward pass.

    The parameter `shift`, float32 (C,), starts at 0 and is not taken off again after the quantization, so that all channels
    share one grid. It is absent from a quantizer of weights and from one whose tensor has no channels, such as a factor of an
    attention product. All this is as in the released code. For its learned factor of
    the skip connection see `QScaledResidualAdd`.

    Args:
        spec: bits, symmetry and granularity of the step.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        channels: the channels of the tensor, also where the step is per tensor; None where it has none.
        shift: learn a shift for each channel; for activations.
        temperature: of the soft staircase, see `fake_quantize_by_step`; above 0, and 1 in the released code. The nearer to 0,
            the nearer to the straight-through gradient.
        gradient_scale: as in LSQ.

    Raises:
        QuantizationError: the temperature is not above 0.
    """

    takes_channels = True

    only_gradients = ("gradient_scale", "temperature")

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        channels: Channels | None = None,
        /,
        *,
        shift: bool = True,
        temperature: float = 1.0,
        gradient_scale: bool = True,
    ) -> None:
        super().__init__(spec, num_channels, gradient_scale=gradient_scale)
        if not 0 < temperature < float("inf"):
            raise QuantizationError(f"The temperature of QuantSR is {temperature}, but must be finite and above 0.")
        self._temperature = temperature
        self._channels = channels if shift else None
        if self._channels is not None:
            self.shift = nn.Parameter(torch.zeros(self._channels.number))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x`, the step and the shift."""
        return super().fake_quantize(self._shifted(x))

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`, counted from the lowest: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        return super().codes(self._shifted(x))

    def stated_range(self, weight: Tensor | None = None, /) -> StatedRange:
        """Return the range of the step; a shift that was learned has no place in it.

        Raises:
            QuantizationError: a channel has a shift.
        """
        if self._channels is not None and bool(self.shift.any()):
            raise QuantizationError("A QuantSRQuantizer has learned a shift of each channel, which no other kind has.")
        return super().stated_range(weight)

    def parameter_units(self) -> dict[str, Tensor]:
        """Return the unit of the step as LSQ does, and the step for the shift of each channel."""
        units = super().parameter_units()
        if self._channels is not None:
            units["shift"] = self.step.detach().expand_as(self.shift)
        return units

    def _fake_quantize(self, x: Tensor, step: Tensor, highest: Tensor) -> Tensor:
        axis = self.spec.channel_axis
        return fake_quantize_by_step(x, step, self.lowest_code, highest, axis, temperature=self._temperature)

    def _shifted(self, x: Tensor) -> Tensor:
        if self._channels is None:
            return x
        shape = [1] * x.dim()
        shape[self._channels.axis] = -1
        return x + self.shift.to(x.dtype).view(shape)  # 1, .., C, .., 1
