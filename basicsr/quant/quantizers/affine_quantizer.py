"""Uniform quantizer with learnable bounds."""

import torch
from torch import Tensor, nn

from basicsr.quant.calibration import Bounds
from basicsr.quant.ops import functional
from basicsr.quant.ops.functional import MINIMAL_WIDTH
from basicsr.quant.quantizers.base import Quantizer, StatedRange
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.utils.registry import QUANTIZER_REGISTRY


@QUANTIZER_REGISTRY.register("Affine")
class AffineQuantizer(Quantizer[Bounds]):
    """Uniform grid of 2**bits values from a lower to an upper bound, both learnable (2DQuant, arXiv 2406.06649).

    The bounds are the parameters `lower_bound` and `upper_bound`, float32, of the shape () or (C,). A symmetric quantizer
    has `upper_bound` alone, and its lower bound is the negative of it; note that 2**bits values between -u and u do not
    contain 0. Bounds that training drives together are kept apart, see `functional.MINIMAL_WIDTH`.

    Args:
        spec: bits, symmetry and granularity.
        num_channels: number of channels along `spec.channel_axis`, for a per-channel quantizer.
        exact_zeros: give the bounds the exact gradient of zeros, see `functional.fake_quantize`: for activations of networks
            with ReLU, where distillation otherwise drives the bounds away from where they are best.
        threshold_window: estimate the gradient of the bounds from the elements this near to a threshold, in steps, see
            `functional.fake_quantize`; 1 is straight-through. Smaller ones are for values that crowd, such as softmax maps.

    Raises:
        QuantizationError: the window is not above 0 and at most 1.
    """

    takes = Bounds
    only_gradients = ("exact_zeros", "threshold_window")

    def __init__(
        self,
        spec: QuantSpec,
        num_channels: int | None = None,
        /,
        *,
        exact_zeros: bool = False,
        threshold_window: float = 1.0,
    ) -> None:
        super().__init__(spec, num_channels)
        if not 0 < threshold_window <= 1:
            raise QuantizationError(
                f"threshold_window of Affine is {threshold_window}, but must be above 0 and at most 1, a share of a step."
            )
        self._exact_zeros, self._threshold_window = exact_zeros, threshold_window
        if not spec.symmetric:
            self.lower_bound = nn.Parameter(torch.full(self.bounds_shape, -1.0))
        self.upper_bound = nn.Parameter(torch.full(self.bounds_shape, 1.0))

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper bound, each of the shape () or (C,)."""
        return (-self.upper_bound if self.spec.symmetric else self.lower_bound), self.upper_bound

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the values that the codes of `x` stand for, with gradients to `x` and to the bounds."""
        return functional.fake_quantize(
            x,
            *self.bounds(),
            self.spec.bits,
            self.spec.channel_axis,
            exact_zeros=self._exact_zeros,
            threshold_window=self._threshold_window,
        )

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`: uint8 from 0 to 2**bits - 1, in the shape of `x`."""
        self.require_calibrated()
        return functional.quantize(x, *self.bounds(), self.spec.bits, self.spec.channel_axis)

    def affine_bounds(self, _weight: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
        """Return the bounds; those that training drove past each other just far enough apart to be distinct float32."""
        lower, upper = self.bounds()
        above = torch.maximum(torch.nextafter(lower, torch.full_like(lower, torch.inf)), lower + 2 * MINIMAL_WIDTH)
        return lower, torch.maximum(upper, above)

    @torch.no_grad()
    def parameter_units(self) -> dict[str, Tensor]:
        """Return the quantization step, (upper - lower) / (2**bits - 1), for each bound."""
        lower, upper = self.bounds()
        return {name: (upper - lower) / self.spec.max_code for name, _ in self.named_parameters()}

    def load_calibration(self, result: Bounds) -> None:
        """Take the bounds that calibration found, see `set_bounds`."""
        self.set_bounds(result.lower_bound, result.upper_bound)

    def load_range(self, stated: StatedRange, _weight: Tensor | None = None, /) -> str:
        """Take the bounds; a symmetric quantizer the larger magnitude, unless the bounds are symmetric already."""
        how = super().load_range(stated)
        keeps = not self.spec.symmetric or torch.equal(stated.lower, -stated.upper)
        return how if keeps else "the larger magnitude of both bounds"

    @torch.no_grad()
    def set_bounds(self, lower: float | Tensor, upper: float | Tensor) -> None:
        """Set the bounds and mark the quantizer as calibrated; a symmetric quantizer takes the larger magnitude of the two.

        Args:
            lower: a number, or a tensor of the shape () or (C,).
            upper: as `lower`; greater than `lower`.

        Raises:
            QuantizationError: a bound is not finite, the bounds meet or cross, or their shape does not fit.
        """
        lower, upper = (
            torch.as_tensor(bound, dtype=torch.float32).to(self.upper_bound.device) for bound in (lower, upper)
        )
        try:
            lower, upper = lower.expand(self.bounds_shape), upper.expand(self.bounds_shape)
        except RuntimeError as error:
            raise QuantizationError(
                f"The bounds for the quantizer '{self.name}' have the shapes {tuple(lower.shape)} and {tuple(upper.shape)}, "
                f"but it needs {self.bounds_shape}."
            ) from error
        unusable = ~(torch.isfinite(lower) & torch.isfinite(upper) & (upper - lower >= MINIMAL_WIDTH))
        if bool(unusable.any()):
            index = tuple(unusable.nonzero()[0].tolist())
            raise QuantizationError(
                f"The bounds {lower[index].item()} and {upper[index].item()} for the quantizer '{self.name}' cannot be "
                f"used{f' (channel {index[0]})' if index else ''}: both must be finite and the lower one must be smaller. "
                "A tensor that is constant or holds NaN gives such bounds; look at what was calibrated."
            )
        if self.spec.symmetric:
            upper = torch.maximum(lower.abs(), upper.abs())
        else:
            self.lower_bound.copy_(lower)
        self.upper_bound.copy_(upper)
        self.mark_calibrated()
