"""Quantizer of activations by mean and standard deviation of each channel of each sample."""

from typing import Literal

import torch
from torch import Tensor

from basicsr.quant.calibration import Bounds
from basicsr.quant.ops import functional
from basicsr.quant.ops.gaussian import OPTIMAL_STEPS
from basicsr.quant.ops.samples import by_sample, from_samples
from basicsr.quant.ops.step_functional import straight_through
from basicsr.quant.quantizers.base import Quantizer, require_symmetry
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("DAQ")
class DAQQuantizer(Quantizer[Bounds]):
    """Distribution-aware quantization (DAQ, WACV 2022): 2**bits values in steps of d * sigma around the mean; dynamic.

    Mean and standard deviation sigma are those of each channel of each sample, computed at inference; per tensor, those of each
    sample. d is the optimal step for a standard normal distribution. After a ReLU the values start at 0 instead, with
    sigma taken over the positive elements: sigma**2 = sum(x**2) / n - (sum(x) / n)**2, n one more than their number, as in the
    released code. Calibration tells, by a smallest value of exactly 0, and the buffer `post_relu` keeps it; the
    released code looks at each batch. sigma itself is quantized over the channels of a sample, in the same way.
    Nothing is learned; the gradient is that of the identity, for clipped values too.

    Args:
        spec: bits and granularity, not symmetric; the channels must not lie along axis 0, that of the samples.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        step: `optimal` for the bits, as stated; `released` for one bit fewer, as in the released code.
        sigma_bits: bits of the quantized sigma, 4 or 8 in the paper; None to leave it in full precision. A single channel has
            nothing to be quantized against and keeps its sigma.
        clamp: limit the values after a ReLU to 2**bits. The released code does not; false is refused here, because b bits
            mean at most 2**b values in everything that this package measures.

    Raises:
        QuantizationError: a symmetric specification, channels along axis 0, bits out of range, or no clamp.
    """

    takes = Bounds
    roles = ("activation",)
    dynamic = True
    post_relu: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        /,
        *,
        step: Literal["optimal", "released"] = "optimal",
        sigma_bits: int | None = 8,
        clamp: bool = True,
    ) -> None:
        super().__init__(spec, num_channels)
        require_symmetry(spec, False, "DAQ")
        if spec.channel_axis == 0:
            raise QuantizationError(
                "DAQ takes mean and deviation of each sample, so that axis 0 cannot hold the channels."
            )
        if not clamp:
            raise QuantizationError(
                f"Option 'clamp' of DAQ is false: after a ReLU, the released code then gives more than 2**{spec.bits} values, "
                f"which are not {spec.bits} bits, and no evaluation here would accept them. Leave it at true."
            )
        if sigma_bits is not None:
            QuantSpec(sigma_bits)  # refuses bits out of range
        fewer = 0 if step == "optimal" else 1
        self._relative_step = OPTIMAL_STEPS[spec.bits - fewer]
        self._sigma_bits = sigma_bits
        self._relative_sigma_step = OPTIMAL_STEPS[sigma_bits - fewer] if sigma_bits else 0.0
        self.register_buffer("post_relu", torch.tensor(False))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with the gradient of the identity to `x`."""
        rows, lower, upper = self._rows_and_bounds(x)
        values = functional.fake_quantize(rows, lower, upper, self.spec.bits, 0)
        return straight_through(x, from_samples(values, x, self.spec.channel_axis).to(x.dtype))

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        rows, lower, upper = self._rows_and_bounds(x)
        return from_samples(functional.quantize(rows, lower, upper, self.spec.bits, 0), x, self.spec.channel_axis)

    def load_calibration(self, result: Bounds) -> None:
        """Take from the smallest value of the data whether they come from a ReLU."""
        self.post_relu.fill_(bool(result.lower_bound.min() == 0))
        self.mark_calibrated()

    @torch.no_grad()
    def _rows_and_bounds(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `x` as (N * C, elements), and what the first and the last code stand for in each row, (N * C,)."""
        samples = by_sample(x.detach(), self.spec.channel_axis)
        samples = samples.to(torch.promote_types(x.dtype, torch.float32))
        elements = samples.shape[2]
        variance, mean = torch.var_mean(samples, dim=2, correction=min(1, elements - 1))  # N, C
        count = (samples > 0).sum(dim=2) + 1
        square = (samples.square().mean(dim=2) * elements / count - (mean * elements / count).square()).clamp_min(0)
        deviation = self._quantized_deviation(torch.where(self.post_relu, square, variance).sqrt())
        step = deviation * self._relative_step
        half = self.spec.max_code / 2
        lower = torch.where(self.post_relu, 0.0, mean - half * step).flatten()  # N * C
        return samples.flatten(0, 1), lower, lower + self.spec.max_code * step.flatten()

    def _quantized_deviation(self, deviation: Tensor) -> Tensor:
        """Quantize the deviations of the channels of each sample (N, C) around their mean; at least 0."""
        channels = deviation.shape[1]
        if self._sigma_bits is None or channels == 1:
            return deviation
        spread, mean = torch.std_mean(deviation, dim=1)  # N
        half = self._relative_sigma_step * spread * (2**self._sigma_bits - 1) / 2
        return functional.fake_quantize(deviation, mean - half, mean + half, self._sigma_bits, 0).clamp_min(0)
